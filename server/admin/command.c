#include "internal.h"

#include <string.h>

#include "tekd/enc.h"
#include "tekd/err.h"

#define BSA_ARGS                                                                                   \
    {"id", ADMIN_STR}, {"certs", ADMIN_STRS}, {"kek", ADMIN_STR}, {"wrap", ADMIN_STR},             \
        {"url", ADMIN_STR}, {"ca", ADMIN_STR}, {"media", ADMIN_STR}, {"form", ADMIN_STR},          \
        {"key_info", ADMIN_BOOL},                                                                  \
    {                                                                                              \
        "entitle", ADMIN_STRS                                                                      \
    }

static const struct admin_command commands[] = {
    {"status", ADMIN_READER, admin_status, {{NULL, ADMIN_STR}}},
    {"hsm status", ADMIN_READER, admin_hsm_status, {{NULL, ADMIN_STR}}},
    {"hsm retry", ADMIN_OPERATOR, admin_hsm_retry, {{"ask_pin", ADMIN_BOOL}}},
    {"bsa add", ADMIN_OPERATOR, admin_bsa_add, {BSA_ARGS}},
    {"bsa set", ADMIN_OPERATOR, admin_bsa_set, {BSA_ARGS, {"keep_old_kek", ADMIN_BOOL}}},
    {"bsa list", ADMIN_READER, admin_bsa_list, {{"after", ADMIN_INT}}},
    {"bsa show", ADMIN_READER, admin_bsa_show, {{"id", ADMIN_STR}}},
    {"bsa disable", ADMIN_OPERATOR, admin_bsa_disable, {{"id", ADMIN_STR}}},
    {"bsa enable", ADMIN_OPERATOR, admin_bsa_enable, {{"id", ADMIN_STR}}},
    {"bsa retire-kek",
     ADMIN_OPERATOR,
     admin_bsa_retire_kek,
     {{"id", ADMIN_STR}, {"kek", ADMIN_STR}}},
    {"content add",
     ADMIN_OPERATOR,
     admin_content_add,
     {{"content", ADMIN_STR},
      {"bits", ADMIN_INT},
      {"period", ADMIN_INT},
      {"lead", ADMIN_INT},
      {"epoch", ADMIN_STR}}},
    {"content list", ADMIN_READER, admin_content_list, {{"after", ADMIN_INT}}},
    {"content show", ADMIN_READER, admin_content_show, {{"content", ADMIN_STR}}},
    {"key list", ADMIN_READER, admin_key_list, {{"content", ADMIN_STR}, {"after", ADMIN_INT}}},
    {"key rotate", ADMIN_OPERATOR, admin_key_rotate, {{"content", ADMIN_STR}}},
    {"key destroy", ADMIN_OPERATOR, admin_key_destroy, {{"key", ADMIN_STR}}},
    {"deliver", ADMIN_OPERATOR, admin_deliver, {{"content", ADMIN_STR}, {"bsas", ADMIN_STRS}}},
    {"delivery list",
     ADMIN_READER,
     admin_delivery_list,
     {{"pending", ADMIN_BOOL}, {"after", ADMIN_INT}}},
    {"delivery show", ADMIN_READER, admin_delivery_show, {{"message", ADMIN_STR}}},
    {"delivery retry", ADMIN_OPERATOR, admin_delivery_retry, {{"message", ADMIN_STR}}},
    {"delivery abandon",
     ADMIN_OPERATOR,
     admin_delivery_abandon,
     {{"message", ADMIN_STR}, {"reason", ADMIN_STR}}},
    {"audit checkpoint", ADMIN_OPERATOR, admin_audit_checkpoint, {{NULL, ADMIN_STR}}},
    {"audit close-epoch", ADMIN_OPERATOR, admin_audit_close_epoch, {{NULL, ADMIN_STR}}},
    {"audit export", ADMIN_OPERATOR, admin_audit_export, {{"epoch", ADMIN_INT}}},
    {"audit records",
     ADMIN_READER,
     admin_audit_records,
     {{"from", ADMIN_INT}, {"event", ADMIN_STR}, {"epoch", ADMIN_INT}}},
};

const struct admin_command *admin_command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/* ---- arguments ------------------------------------------------------------------------------- */

static bool are_strings(const json_t *list)
{
    bool are = json_is_array(list);

    for (size_t i = 0; are && i < json_array_size(list); i++)
        are = json_is_string(json_array_get(list, i));
    return are;
}

static bool is_of_kind(const json_t *value, enum admin_arg_kind kind)
{
    switch (kind) {
    case ADMIN_STR:
        return json_is_string(value);
    case ADMIN_INT:
        return json_is_integer(value);
    case ADMIN_BOOL:
        return json_is_boolean(value);
    case ADMIN_STRS:
        return are_strings(value);
    }
    return false;
}

static const struct admin_arg *arg_find(const struct admin_command *command, const char *key)
{
    for (size_t i = 0; i < ADMIN_ARGS_MAX && command->arg[i].key; i++) {
        if (strcmp(command->arg[i].key, key) == 0)
            return &command->arg[i];
    }
    return NULL;
}

int admin_check_args(struct admin_call *call, const struct admin_command *command)
{
    static const char *const kinds[] = {[ADMIN_STR] = "a string",
                                        [ADMIN_INT] = "an integer",
                                        [ADMIN_BOOL] = "true or false",
                                        [ADMIN_STRS] = "an array of strings"};
    const char *key;
    json_t *value;

    /* The macro of jansson 2.14 takes no const. */
    json_object_foreach ((json_t *)(uintptr_t)call->args, key, value) {
        const struct admin_arg *arg = arg_find(command, key);

        if (strcmp(key, "command") == 0)
            continue;
        if (!arg)
            return admin_fail_call(call, TEKD_EINVAL, "\"%s\" takes no \"%.60s\"", command->name,
                                   key);
        if (!is_of_kind(value, arg->kind))
            return admin_fail_call(call, TEKD_EINVAL, "\"%s\": expected %s", key, kinds[arg->kind]);
    }
    return 0;
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

    return v ? json_integer_value(v) : other;
}

json_t *admin_utc(int64_t utc_us)
{
    char text[ENC_TIME_LEN + 1];

    enc_time(utc_us, text);
    return json_string(text);
}

json_t *admin_time(int64_t utc_us)
{
    return utc_us == 0 ? json_null() : admin_utc(utc_us);
}

int admin_page_result(struct admin_call *call, struct admin_page *page)
{
    AUTO_JSON json_t *result = json_object();

    if (json_object_set_new(result, "list", TAKE(page->list)) < 0 ||
        (page->n == ADMIN_PAGE_ROWS &&
         json_object_set_new(result, "next", json_integer(page->last)) < 0))
        return TEKD_ENOMEM;
    call->result = TAKE(result);
    return 0;
}
