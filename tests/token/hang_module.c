/* A PKCS#11 module that hangs when it is loaded, as vendors' do when their HSM is away. */
#include <unistd.h>

unsigned long C_GetFunctionList(void **list);

unsigned long C_GetFunctionList(void **list)
{
    (void)list;
    for (;;)
        (void)pause();
}
