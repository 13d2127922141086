# Publication, over the real store.
foreach(module publish publish_syslog publish_kept publish_witness)
    tekd_unit_test(${module} tekd_publish store_fixture FAKE_CLOCK)
    target_include_directories(test_${module} PRIVATE ${PROJECT_SOURCE_DIR}/server/publish)
endforeach()
target_sources(test_publish_witness PRIVATE ${CMAKE_CURRENT_LIST_DIR}/cosigner.c)
