# What is in server/ itself, over parts that say what a test wants.
foreach(part probe watch)
    tekd_unit_test(${part} tekd_audit tekd_base FAKE_CLOCK)
    target_sources(test_${part} PRIVATE ${PROJECT_SOURCE_DIR}/server/${part}.c server_parts.c)
    target_include_directories(test_${part} PRIVATE ${PROJECT_SOURCE_DIR}/server)
    target_compile_definitions(test_${part} PRIVATE TEKD_VERSION="${PROJECT_VERSION}")
endforeach()
