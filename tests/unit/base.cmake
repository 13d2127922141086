foreach(module backoff err buf enc fds net secret queue)
    tekd_unit_test(${module} tekd_base)
endforeach()
# The test looks at the pages between the wipe and the unmapping, and lets locking fail.
target_link_options(test_secret PRIVATE -Wl,--wrap=munmap,--wrap=mlock)

# A second passes when the test says so; jansson judges the JSON lines.
tekd_unit_test(log tekd_base PkgConfig::JANSSON FAKE_CLOCK)
