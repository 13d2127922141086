# The token library and tek-provision over SoftHSM tokens, each test with its own.
find_file(TEKD_SOFTHSM libsofthsm2.so PATHS /usr/lib/softhsm /usr/lib/x86_64-linux-gnu/softhsm
          /usr/lib/aarch64-linux-gnu/softhsm)

add_library(tekd_token_shim MODULE shim.c)
target_link_libraries(tekd_token_shim PRIVATE ${CMAKE_DL_LIBS})
target_include_directories(tekd_token_shim SYSTEM PRIVATE ${P11KIT_INCLUDE_DIRS})

add_library(tekd_lab STATIC lab.c)
target_link_libraries(tekd_lab PUBLIC tekd_token tekd_clock PkgConfig::CMOCKA PkgConfig::CRYPTO
                      PkgConfig::P11KIT PkgConfig::JANSSON ${CMAKE_DL_LIBS})
target_include_directories(tekd_lab PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(tekd_lab
    PUBLIC TEST_SOFTHSM="${TEKD_SOFTHSM}" TEST_SHIM="$<TARGET_FILE:tekd_token_shim>"
           TEST_DATA_DIR="${PROJECT_SOURCE_DIR}/tests/data")
add_dependencies(tekd_lab tekd_token_shim)

foreach(name open login make kek tek vectors attack sign ed25519)
    add_executable(test_token_${name} test_token_${name}.c)
    target_link_libraries(test_token_${name} PRIVATE tekd_lab)
    add_test(NAME token/${name} COMMAND test_token_${name})
    set_tests_properties(token/${name} PROPERTIES TIMEOUT 120)
endforeach()
target_sources(test_token_ed25519 PRIVATE softhsm_leaks.c)

# What the token wraps, unwrapped by an implementation that shares no code with it or with us.
add_executable(token_roundtrip token_roundtrip.c)
target_link_libraries(token_roundtrip PRIVATE tekd_token tekd_base tekd_clock
                      PkgConfig::JANSSON)
foreach(name check_unwrap check_provision)
    add_test(NAME token/${name}
             COMMAND /usr/bin/python3 ${CMAKE_CURRENT_SOURCE_DIR}/${name}.py
                     $<TARGET_FILE:tek-provision> $<TARGET_FILE:token_roundtrip> ${TEKD_SOFTHSM}
                     $<TARGET_FILE:tekd_token_shim>)
    set_tests_properties(token/${name} PROPERTIES TIMEOUT 120)
endforeach()

# All the programs together, as the README's first command plays them.  What a sanitizer would see of
# them it sees in other tests; here they are begun hundreds of times, which takes it most of a minute.
if(NOT TEKD_SANITIZE)
    add_test(NAME token/check_quickstart
             COMMAND /usr/bin/python3 ${CMAKE_CURRENT_SOURCE_DIR}/check_quickstart.py
                     ${PROJECT_BINARY_DIR})
    set_tests_properties(token/check_quickstart PROPERTIES TIMEOUT 300 COST 100)
endif()
