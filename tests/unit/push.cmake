# The push service: its parts alone, with transfers against a TLS server of the tests'; then the
# whole over the real store, the key service and an HSM of the tests'.
add_library(push_server STATIC push_server.c)
target_link_libraries(push_server PUBLIC bsa_server PkgConfig::SSL PkgConfig::CRYPTO Threads::Threads)
tekd_unit_test(https push_server tekd_https tekd_base FAKE_CLOCK)
foreach(module push_lane push_answer push_transfer push_sign)
    tekd_unit_test(${module} push_server tekd_push tekd_keys tekd_store tekd_hsm_wrap tekd_base FAKE_CLOCK)
    target_include_directories(test_${module} PRIVATE ${PROJECT_SOURCE_DIR}/server/push)
    target_sources(test_${module} PRIVATE fake_hsm.c) # the key service has to find one
endforeach()
foreach(module push_transfer push_sign)
    target_sources(test_${module} PRIVATE push_wire.c)
endforeach()
add_library(push_fixture STATIC push_fixture.c)
target_link_libraries(push_fixture PUBLIC tekd_push keys_fixture push_server PkgConfig::CMOCKA)
foreach(module push push_collect push_jobs push_life)
    tekd_unit_test(${module} push_fixture tekd_base FAKE_CLOCK)
endforeach()
target_sources(test_push_life PRIVATE wall_clock.c) # certificates expire when it says so
