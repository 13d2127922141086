# The front over loopback TLS; time passes when the test says so.
add_library(http_fixture STATIC http_fixture.c http_client.c http_pki.c)
target_link_libraries(http_fixture
    PUBLIC tekd_http tekd_fake_clock PkgConfig::SSL PkgConfig::CRYPTO Threads::Threads)
# What libh2o keeps for reuse with each thread it does not free when the thread ends.
add_library(h2o_leaks OBJECT h2o_leaks.c)
foreach(module http http_tls http_life http_plain)
    tekd_unit_test(${module} http_fixture tekd_http tekd_base h2o_leaks FAKE_CLOCK)
endforeach()
tekd_unit_test(pem http_fixture tekd_tls tekd_base h2o_leaks FAKE_CLOCK)
target_sources(test_pem PRIVATE passphrase.c)
# Certificates expire when it says so.
target_sources(test_http_tls PRIVATE wall_clock.c)
