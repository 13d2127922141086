foreach(module merkle record note)
    tekd_unit_test(${module} tekd_audit tekd_base)
endforeach()
