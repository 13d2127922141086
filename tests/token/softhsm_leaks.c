/*
 * SoftHSM (2.6.1) never frees the name of the curve that it reads in each C_SignInit() of an
 * Ed25519 key: 37 octets a signature.  Its frames are seen by a slow unwinding only.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libsofthsm2.so\n";
}

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "fast_unwind_on_malloc=0";
}
