foreach(module bsa_check bsa_unwrap bsa_options)
    tekd_unit_test(${module} tekd_bsa tekd_base PkgConfig::JANSSON)
endforeach()

# Against a TLS server of their own, which answers what the test says.
add_library(bsa_server STATIC bsa_server.c)
target_link_libraries(bsa_server PUBLIC PkgConfig::SSL PkgConfig::CRYPTO PkgConfig::CMOCKA
                                        Threads::Threads)
foreach(module bsa_https bsa_request)
    tekd_unit_test(${module} bsa_server tekd_bsa tekd_base PkgConfig::JANSSON)
endforeach()
