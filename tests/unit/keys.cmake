# The key service: its parts alone, then the whole over a real store and an HSM of the test's.
foreach(module keys_policy keys_cache keys_bloom keys_flight keys_line keys_limit keys_registry
               keys_reply)
    tekd_unit_test(${module} tekd_keys tekd_store tekd_base FAKE_CLOCK)
    target_include_directories(test_${module} PRIVATE ${PROJECT_SOURCE_DIR}/server/keys)
endforeach()
target_link_libraries(test_keys_reply PRIVATE PkgConfig::JANSSON)
