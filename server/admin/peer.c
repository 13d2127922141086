/*
 * Who asks, by the credentials that the kernel has of the peer, and what he may.
 */
#include "internal.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/socket.h>

#include "tekd/err.h"

#define GROUPS_MAX 256 /* of one user */

static bool in_group(const struct ucred *cred, const char *user, int64_t gid)
{
    gid_t groups[GROUPS_MAX];
    int n = GROUPS_MAX;

    if (gid < 0)
        return false;
    if ((int64_t)cred->gid == gid)
        return true;
    if (getgrouplist(user, cred->gid, groups, &n) < 0)
        return false;
    for (int i = 0; i < n; i++) {
        if ((int64_t)groups[i] == gid)
            return true;
    }
    return false;
}

static enum admin_right right_of(const struct admin *a, const struct ucred *cred, const char *user)
{
    if (cred->uid == 0 || cred->uid == geteuid() || in_group(cred, user, a->gid))
        return ADMIN_OPERATOR;
    return in_group(cred, user, a->readonly_gid) ? ADMIN_READER : ADMIN_NOBODY;
}

int admin_identify(const struct admin *a, int fd, struct keys_actor *ret_actor,
                   enum admin_right *ret_right)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    struct passwd pw, *found = NULL;
    char text[4096];

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return TEKD_EIO;
    (void)getpwuid_r(cred.uid, &pw, text, sizeof(text), &found);
    ret_actor->uid = cred.uid;
    if (found)
        (void)snprintf(ret_actor->name, sizeof(ret_actor->name), "%.60s", pw.pw_name);
    else
        (void)snprintf(ret_actor->name, sizeof(ret_actor->name), "%u", (unsigned)cred.uid);
    *ret_right = right_of(a, &cred, ret_actor->name);
    return 0;
}
