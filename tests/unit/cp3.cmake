# The codec: as a peer sees it (samples, bad input, limits), and as a library.
add_library(cp3_fixture STATIC cp3_fixture.c cp3_equal.c)
target_link_libraries(cp3_fixture PUBLIC PkgConfig::CMOCKA PRIVATE PkgConfig::XML)
target_compile_definitions(cp3_fixture PRIVATE TEST_DATA_DIR="${PROJECT_SOURCE_DIR}/tests/data"
                           CP3_XSD_DIR="${PROJECT_SOURCE_DIR}/lib/cp3/xsd")

foreach(part samples bad limits names)
    tekd_unit_test(cp3_${part} cp3_fixture cp3_static)
endforeach()
tekd_unit_test(cp3_memory cp3_fixture cp3_static PkgConfig::JANSSON)
tekd_unit_test(cp3_lib cp3_fixture cp3 Threads::Threads)

set(flags)
if(TEKD_SANITIZE)
    set(flags -fsanitize=${TEKD_SANITIZE})
endif()
add_test(NAME unit/cp3_install
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cp3_install.sh ${PROJECT_BINARY_DIR}
                 ${CMAKE_C_COMPILER} ${PROJECT_SOURCE_DIR}/tests/data/cp3/ok_1_request.xml ${flags})
