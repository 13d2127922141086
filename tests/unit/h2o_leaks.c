/*
 * For the leak checker: h2o 2.2 keeps buffers for reuse with each thread, and does not free them
 * when the thread ends.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libh2o-evloop\n";
}
