add_library(bsa_output STATIC bsa_output.c)
target_link_libraries(bsa_output PUBLIC PkgConfig::CMOCKA)
foreach(module bsa_check bsa_delivery bsa_file bsa_journal bsa_options bsa_report bsa_unwrap)
    tekd_unit_test(${module} bsa_output tekd_bsa tekd_base PkgConfig::JANSSON)
endforeach()
# The disk fails when the test says so.
target_link_options(test_bsa_journal PRIVATE -Wl,--wrap=fdatasync)
target_link_options(test_bsa_delivery PRIVATE -Wl,--wrap=fdatasync,--wrap=fsync)
target_link_options(test_bsa_file PRIVATE -Wl,--wrap=fsync)

# Against a TLS server of their own, which answers what the test says.
add_library(bsa_server STATIC bsa_server.c)
target_link_libraries(bsa_server PUBLIC PkgConfig::SSL PkgConfig::CRYPTO PkgConfig::CMOCKA
                                        Threads::Threads)
foreach(module bsa_collect bsa_front bsa_https bsa_listen bsa_request bsa_stop)
    tekd_unit_test(${module} bsa_server bsa_output tekd_bsa tekd_base PkgConfig::JANSSON)
endforeach()
target_sources(test_bsa_https PRIVATE passphrase.c)
# What libh2o keeps for reuse with each thread it does not free when the thread ends.
target_link_libraries(test_bsa_front PRIVATE h2o_leaks)
target_link_libraries(test_bsa_listen PRIVATE h2o_leaks)
