# The pool and its workers over a SoftHSM token of the test's own.
find_file(TEKD_SOFTHSM libsofthsm2.so PATHS /usr/lib/softhsm /usr/lib/x86_64-linux-gnu/softhsm
          /usr/lib/aarch64-linux-gnu/softhsm)
find_file(TEKD_PKCS11_SPY pkcs11-spy.so PATHS /usr/lib/x86_64-linux-gnu
          /usr/lib/aarch64-linux-gnu)

add_library(tekd_hang_module MODULE hang_module.c)

add_library(tekd_hsm_fixture STATIC hsm_fixture.c)
target_link_libraries(tekd_hsm_fixture PUBLIC tekd_hsm_client tekd_token tekd_clock
                      PkgConfig::CMOCKA PkgConfig::CRYPTO)
target_include_directories(tekd_hsm_fixture PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(tekd_hsm_fixture
    PUBLIC TEST_SOFTHSM="${TEKD_SOFTHSM}" TEST_SPY="${TEKD_PKCS11_SPY}"
           TEST_TEKD_HSM="$<TARGET_FILE:tekd-hsm>"
           TEST_HANG_MODULE="$<TARGET_FILE:tekd_hang_module>"
           TEST_SHIM="$<TARGET_FILE:tekd_token_shim>")
add_dependencies(tekd_hsm_fixture tekd-hsm tekd_hang_module tekd_token_shim)

foreach(name hsm_calls hsm_faults hsm_login hsm_life)
    add_executable(test_${name} test_${name}.c)
    target_link_libraries(test_${name} PRIVATE tekd_hsm_fixture)
    add_test(NAME token/${name} COMMAND test_${name})
    set_tests_properties(token/${name} PROPERTIES TIMEOUT 120)
endforeach()


# What the pool costs against the bare loop; run by hand.
add_executable(bench_hsm bench_hsm.c)
target_link_libraries(bench_hsm PRIVATE tekd_hsm_fixture)

# What a second signature in each checkpoint costs; run by hand.
add_executable(bench_sign bench_sign.c)
target_link_libraries(bench_sign PRIVATE tekd_hsm_fixture)
