# Compiler flags and switches; the presets in CMakePresets.json set the switches.

option(TEKD_TESTS "build the tests" ON)
option(TEKD_FUZZ "build the fuzz targets (clang)" OFF)
set(TEKD_SANITIZE "" CACHE STRING "sanitizers, as -fsanitize takes them: address,undefined or thread")

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()

# Broken invariants abort in released builds too: no NDEBUG.
foreach(type RELEASE RELWITHDEBINFO MINSIZEREL)
    string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_${type} "${CMAKE_C_FLAGS_${type}}")
endforeach()

add_compile_definitions(_GNU_SOURCE)
add_compile_options(-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
                    -Werror -fno-common -fstack-protector-strong)
add_link_options(-Wl,-z,relro,-z,now)

# A hundred test programs are linked in a third of the time; what is installed is linked as usual,
# and libcp3 exports what it should.
include(CheckLinkerFlag)
check_linker_flag(C -fuse-ld=gold TEKD_HAVE_GOLD)
if(TEKD_TESTS AND TEKD_HAVE_GOLD)
    add_link_options($<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-fuse-ld=gold>)
endif()

if(TEKD_SANITIZE)
    # -O1: half the time of the tests, and the reports can still be read.  -g1: they need no more than
    # lines, which saves a tenth of the build.
    add_compile_options(-O1 -g1 -fsanitize=${TEKD_SANITIZE} -fno-omit-frame-pointer
                        -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${TEKD_SANITIZE})
else()
    add_compile_options($<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
endif()

include_directories(${PROJECT_SOURCE_DIR}/include)
