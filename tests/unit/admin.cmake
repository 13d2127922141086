# The admin socket, over the key service of keys.cmake.
add_library(admin_fixture STATIC admin_fixture.c)
target_link_libraries(admin_fixture
    PUBLIC tekd_admin keys_fixture PkgConfig::JANSSON PkgConfig::CMOCKA)
foreach(module admin admin_delivery)
    tekd_unit_test(${module} admin_fixture tekd_admin tekd_keys tekd_base)
endforeach()
# What tekctl makes of the records.
tekd_unit_test(tekctl_deliveries tekd_audit tekd_base PkgConfig::JANSSON)
target_sources(test_tekctl_deliveries
    PRIVATE ${PROJECT_SOURCE_DIR}/server/admin/tekctl/deliveries.c)
target_include_directories(test_tekctl_deliveries
    PRIVATE ${PROJECT_SOURCE_DIR}/server/admin/tekctl)
