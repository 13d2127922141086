# The key service: its parts alone, then the whole over a real store and an HSM of the test's.
foreach(module keys_policy keys_cache keys_bloom keys_flight keys_line keys_limit keys_registry
               keys_reply)
    tekd_unit_test(${module} tekd_keys tekd_store tekd_base FAKE_CLOCK)
    target_include_directories(test_${module} PRIVATE ${PROJECT_SOURCE_DIR}/server/keys)
endforeach()
target_link_libraries(test_keys_reply PRIVATE PkgConfig::JANSSON)

add_library(keys_fixture STATIC keys_fixture.c keys_delivery.c fake_hsm.c)
target_link_libraries(keys_fixture
    PUBLIC tekd_keys store_signer tekd_store tekd_hsm_wrap PkgConfig::CRYPTO Threads::Threads)
foreach(module keys_service keys_race keys_faults keys_admin keys_kek)
    tekd_unit_test(${module} keys_fixture tekd_keys tekd_base)
endforeach()
# What waits for a signature can be kept from the store.
target_link_libraries(test_keys_race PRIVATE store_check)
target_link_options(test_keys_race PRIVATE -Wl,--wrap=store_submit)
# With time that stands still until a test moves it.
foreach(module keys_period keys_confirm keys_deliver keys_fanout keys_delivery)
    tekd_unit_test(${module} keys_fixture tekd_keys tekd_base FAKE_CLOCK)
    target_include_directories(test_${module} PRIVATE ${PROJECT_SOURCE_DIR}/server/keys)
endforeach()
# Commits that find no space.
foreach(module keys_admin keys_kek keys_confirm keys_fanout)
    target_sources(test_${module} PRIVATE store_vfs.c)
    target_link_libraries(test_${module} PRIVATE PkgConfig::SQLITE)
endforeach()
tekd_unit_test(keys_collect keys_fixture tekd_keys tekd_base)
