tekd_unit_test(hsm_protocol tekd_hsm_protocol)
tekd_unit_test(hsm_pin tekd_hsm_worker FAKE_CLOCK)
# The clock stands before the log that needs it on the linker's line.
target_link_options(test_hsm_pin PRIVATE -Wl,-u,clock_mono_us)
tekd_unit_test(token_ecdsa tekd_token PkgConfig::P11KIT)
