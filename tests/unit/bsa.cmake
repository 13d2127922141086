foreach(module bsa_check bsa_journal bsa_unwrap bsa_options)
    tekd_unit_test(${module} tekd_bsa tekd_base PkgConfig::JANSSON)
endforeach()
# The disk fails when the test says so.
target_link_options(test_bsa_journal PRIVATE -Wl,--wrap=fdatasync)

# Against a TLS server of their own, which answers what the test says.
add_library(bsa_server STATIC bsa_server.c)
target_link_libraries(bsa_server PUBLIC PkgConfig::SSL PkgConfig::CRYPTO PkgConfig::CMOCKA
                                        Threads::Threads)
foreach(module bsa_https bsa_request bsa_stop)
    tekd_unit_test(${module} bsa_server tekd_bsa tekd_base PkgConfig::JANSSON)
endforeach()
