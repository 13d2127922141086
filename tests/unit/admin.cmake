# The admin socket, over the key service of keys.cmake.
tekd_unit_test(admin tekd_admin keys_fixture tekd_keys tekd_base PkgConfig::JANSSON)
