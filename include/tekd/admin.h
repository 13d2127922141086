/*
 * The admin socket: what tekctl talks to.  A Unix stream socket; one request per connection: one
 * JSON object on one line,
 *     {"command":"bsa add","id":"bsa-1","certs":["-----BEGIN…"],…}
 * and one answer: a JSON object on one line ({"ok":true,…} or {"ok":false,"error":…,"code":…}; the
 * latter with a "result" if a part of it was done), for audit export followed by a stream described
 * on top of server/admin/cmd_audit.c.  A list comes by
 * the page, {"list":[…],"next":N}: the same request with "after":N gives the next one, and the last
 * has no "next".
 *
 * Who may: the peer's uid and groups by SO_PEERCRED.  root, tekd's own user and members of `group`
 * may do everything, members of `readonly_group` may look.  tekd opens no path that comes over the
 * socket: tekctl reads and writes all files as its caller.
 *
 * Thread rule: admin_start() and admin_stop() from one thread; at most ADMIN_CONNECTIONS_MAX
 * connections are served at once, each by a thread of its own.  Of these at most ADMIN_READERS_MAX
 * are of peers that may only look, so that those cannot keep out who may change things.
 * ADMIN_WAITING_MAX more of them wait for their turn, and the next is told to try again
 * (TEKD_EAGAIN).  Who sends no request within ADMIN_TIMEOUT_MS, or takes nothing of his answer for
 * as long, is cut off.
 */
#ifndef TEKD_ADMIN_H
#define TEKD_ADMIN_H

#include <stdbool.h>
#include <stdint.h>

#include "tekd/hsm.h"
#include "tekd/http.h"
#include "tekd/keys.h"
#include "tekd/publish.h"
#include "tekd/push.h"
#include "tekd/store.h"

#define ADMIN_CONNECTIONS_MAX 8      /* operators and scripts at once; more wait in the backlog */
#define ADMIN_READERS_MAX     4      /* of them: half, as neither is to be without the other */
#define ADMIN_WAITING_MAX     16     /* readers beyond that: as many as the backlog would hold */
#define ADMIN_REQUEST_MAX     262144 /* certificates, a CA and patterns of one BSA */
#define ADMIN_TIMEOUT_MS      10000  /* to send a request, or to take a part of an answer */

struct admin;

/* Strings are copied; the parts outlive the socket. */
struct admin_options {
    const char *socket;
    const char *group;          /* NULL: root and tekd's user only */
    const char *readonly_group; /* NULL: none */
    const char *version;
    const char *bsm_id;
    const char *instance;
    unsigned default_bits;       /* of content add */
    int64_t delivery_deadline_s; /* of deliver, and of delivery retry */
    struct keys *keys;
    struct store *store;
    struct hsm *hsm;
    struct http *http;
    struct push *push;
    struct publish *publish; /* NULL: nothing is published */
    /* Whether keys can be given; 0, or an error with the reason in words. */
    int (*ready)(void *arg, char reason[static HSM_TEXT_MAX]);
    void *ready_arg;
};

/*
 * A socket that is left over from a tekd that died is replaced; one that answers is another tekd,
 * and what is no socket is left alone.  A group that there is not gives rights to nobody; the log
 * says so.  Errors: TEKD_EEXIST, TEKD_EIO, TEKD_EINVAL (path too long), TEKD_ENOMEM.
 */
int admin_start(const struct admin_options *o, struct admin **ret_admin);
/* Ends the connections, joins, removes the socket. */
void admin_stop(struct admin *a);

#endif
