# The store over real SQLite files; store_signer.c is the HSM.
add_library(store_signer STATIC store_signer.c)
target_link_libraries(store_signer PUBLIC tekd_store)

# What looks at the log of a store that is open; it ends the test that finds something.
add_library(store_check STATIC store_check.c)
target_link_libraries(store_check PUBLIC store_signer PkgConfig::CMOCKA)

add_library(store_fixture STATIC store_fixture.c store_old.c store_vfs.c)
target_compile_definitions(store_fixture PRIVATE TEST_DATA_DIR="${PROJECT_SOURCE_DIR}/tests/data")
target_link_libraries(store_fixture PUBLIC store_check PkgConfig::SQLITE)

foreach(module store store_start store_faults store_signer store_rows store_delivery
               store_fanout store_fanout_faults store_scan store_upgrade store_upgrade_faults
               store_space store_epoch store_signkey store_log_faults store_pragmas)
    tekd_unit_test(${module} store_fixture FAKE_CLOCK)
endforeach()
# SQLite does another thing than it is told.
target_link_options(test_store_pragmas PRIVATE -Wl,--wrap=sqlite3_prepare_v2)
# It looks at how SQLite runs the statements.
target_include_directories(test_store_delivery PRIVATE ${PROJECT_SOURCE_DIR}/server/store)

# Both of one source: what the log costs is measured by a link without it.
foreach(kind log nolog)
    set(program store_bench)
    if(kind STREQUAL nolog)
        set(program store_bench_nolog)
    endif()
    add_executable(${program} ../bench/store_bench.c ../bench/store_${kind}.c)
    target_link_libraries(${program} PRIVATE store_signer tekd_clock)
    target_include_directories(${program} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
endforeach()
