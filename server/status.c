/* What failures mean to whoever started tekd. */
#include "tekd.h"

#include "tekd/err.h"

int status_of(int error)
{
    return error == TEKD_EIO || error == TEKD_ETAMPER || error == TEKD_EFULL ? EXIT_IO
                                                                             : EXIT_FAILED;
}

bool status_hsm_refused(const struct hsm_status *s)
{
    static const int errors[] = {TEKD_EWEAK, TEKD_EINVAL, TEKD_ENOTFOUND, TEKD_EEXIST};

    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        if (s->state == HSM_DOWN && s->error == errors[i])
            return true;
    }
    return false;
}
