# The admin socket, over the key service of keys.cmake.
tekd_unit_test(admin tekd_admin keys_fixture tekd_keys tekd_base PkgConfig::JANSSON)
# What tekctl makes of the records.
tekd_unit_test(tekctl_deliveries tekd_audit tekd_base PkgConfig::JANSSON)
target_sources(test_tekctl_deliveries
    PRIVATE ${PROJECT_SOURCE_DIR}/server/admin/tekctl/deliveries.c)
target_include_directories(test_tekctl_deliveries
    PRIVATE ${PROJECT_SOURCE_DIR}/server/admin/tekctl)
