foreach(module merkle record note timestamp ledger)
    tekd_unit_test(${module} tekd_audit tekd_base)
endforeach()
target_sources(test_timestamp PRIVATE ${CMAKE_CURRENT_LIST_DIR}/tsa.c)

# tek-audit, on exports that audit_export.c makes and breaks.
foreach(module audit_verify audit_files audit_program audit_docs)
    tekd_unit_test(${module} tek_audit_core tekd_audit tekd_base)
    target_sources(test_${module} PRIVATE ${CMAKE_CURRENT_LIST_DIR}/audit_export.c)
    target_include_directories(test_${module} PRIVATE ${PROJECT_SOURCE_DIR}/lib/audit)
    target_compile_definitions(test_${module} PRIVATE TEK_AUDIT_PROGRAM="$<TARGET_FILE:tek-audit>")
    add_dependencies(test_${module} tek-audit)
endforeach()
target_sources(test_audit_files PRIVATE ${CMAKE_CURRENT_LIST_DIR}/tsa.c)
