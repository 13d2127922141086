tekd_unit_test(config tekd_config tekd_audit tekd_base)
# The table's private header, to try the stages one by one.
target_include_directories(test_config PRIVATE ${PROJECT_SOURCE_DIR}/server/config)
target_link_libraries(test_config PRIVATE PkgConfig::CYAML PkgConfig::YAML)
