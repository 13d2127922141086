#include "internal.h"

#include <string.h>

#include "tekd/err.h"

static const struct admin_command commands[] = {
    {"status", ADMIN_READER, admin_status},
    {"hsm status", ADMIN_READER, admin_hsm_status},
    {"hsm retry", ADMIN_OPERATOR, admin_hsm_retry},
    {"bsa add", ADMIN_OPERATOR, admin_bsa_add},
    {"bsa set", ADMIN_OPERATOR, admin_bsa_set},
    {"bsa list", ADMIN_READER, admin_bsa_list},
    {"bsa show", ADMIN_READER, admin_bsa_show},
    {"bsa disable", ADMIN_OPERATOR, admin_bsa_disable},
    {"bsa enable", ADMIN_OPERATOR, admin_bsa_enable},
    {"content add", ADMIN_OPERATOR, admin_content_add},
    {"content list", ADMIN_READER, admin_content_list},
    {"content show", ADMIN_READER, admin_content_show},
    {"key list", ADMIN_READER, admin_key_list},
    {"key rotate", ADMIN_OPERATOR, admin_key_rotate},
    {"key destroy", ADMIN_OPERATOR, admin_key_destroy},
    {"audit checkpoint", ADMIN_OPERATOR, admin_audit_checkpoint},
    {"audit export", ADMIN_OPERATOR, admin_audit_export},
    {"audit records", ADMIN_READER, admin_audit_records},
};

const struct admin_command *admin_command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

const char *admin_arg_str(struct admin_call *call, const char *key, int *r)
{
    const char *s = json_string_value(json_object_get(call->args, key));

    if (!s)
        *r = admin_fail_call(call, TEKD_EINVAL, "\"%s\" is missing", key);
    return s;
}

const char *admin_arg_str_or(const struct admin_call *call, const char *key, const char *other)
{
    const char *s = json_string_value(json_object_get(call->args, key));

    return s ? s : other;
}

int64_t admin_arg_int_or(const struct admin_call *call, const char *key, int64_t other)
{
    const json_t *v = json_object_get(call->args, key);

    return json_is_integer(v) ? json_integer_value(v) : other;
}
