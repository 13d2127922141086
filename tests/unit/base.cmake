foreach(module err secret buf enc log)
    tekd_unit_test(${module} tekd_base)
endforeach()
tekd_unit_test(queue tekd_base FAKE_CLOCK)
