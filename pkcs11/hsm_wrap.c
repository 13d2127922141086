/* The names of the key wraps; used by the server, the workers and the tools alike. */
#include "tekd/hsm.h"

#include <string.h>

#include "tekd/auto.h"
#include "tekd/err.h"

static const struct {
    enum hsm_wrap wrap;
    const char *name;
} wraps[] = {
    {HSM_WRAP_AES_KW, "aes-kw"},
    {HSM_WRAP_AES_KWP, "aes-kwp"},
    {HSM_WRAP_OAEP_SHA256, "rsa-oaep-sha256"},
    {HSM_WRAP_OAEP_SHA1, "rsa-oaep-sha1"},
};

const char *hsm_wrap_name(enum hsm_wrap w)
{
    for (size_t i = 0; i < ARRAY_SIZE(wraps); i++) {
        if (wraps[i].wrap == w)
            return wraps[i].name;
    }
    return NULL;
}

int hsm_wrap_read(const char *name, enum hsm_wrap *ret_wrap)
{
    for (size_t i = 0; i < ARRAY_SIZE(wraps); i++) {
        if (strcmp(wraps[i].name, name) == 0) {
            *ret_wrap = wraps[i].wrap;
            return 0;
        }
    }
    return TEKD_ENOTFOUND;
}
