/*
 * The messages of clause 12.4.4.1 and their extensions, in one table: a line a field, a column a
 * message.  Data types and cardinalities are those of the change request; its "O" rows are 0..1,
 * its blank cardinality is 1.
 *
 *   column 1: 12.4.4.1.1 Key Request                 2: 12.4.4.1.2 Response
 *          3: 12.4.4.1.3 Key Delivery                4: 12.4.4.1.4 Confirmation
 *   M  in both forms                                 F  in the full form only
 *   S  if and only if Status is 0                    O  may be there, in the full form
 *   -  not in that message
 */
#include "cp3_codec.h"

#include <string.h>

#define M CP3_MANDATORY
#define F CP3_SESSION
#define S CP3_GIVEN
#define O CP3_OPTIONAL
#define x CP3_ABSENT

#define VALUE(member)                                                                              \
    .offset = offsetof(struct cp3_message, member),                                                \
    .size = sizeof(((struct cp3_message *)NULL)->member)
#define HAS(member, bit) .has_offset = offsetof(struct cp3_message, member), .has = (bit)

#define KEY_HAS(bit) HAS(key_info.has, bit)

static const struct cp3_field key_info_members[] = {
    {"keyID", &cp3_type_uuid, VALUE(key_info.key_id), .in = {M}},
    {"kekID", &cp3_type_string, VALUE(key_info.kek_id), .min = 1, .max = CP3_KEK_ID_MAX, .in = {M}},
    {"wrap", &cp3_type_wrap, VALUE(key_info.wrap), .in = {M}},
    {"bits", &cp3_type_integer, VALUE(key_info.bits), .max = UINT16_MAX, .in = {M}},
    {"period", &cp3_type_integer, VALUE(key_info.period), KEY_HAS(CP3_KEY_HAS_PERIOD),
     .max = CP3_INTEGER_MAX, .in = {O}},
    {"notBefore", &cp3_type_date, VALUE(key_info.not_before), KEY_HAS(CP3_KEY_HAS_NOT_BEFORE),
     .in = {O}},
    {"notAfter", &cp3_type_date, VALUE(key_info.not_after), KEY_HAS(CP3_KEY_HAS_NOT_AFTER),
     .in = {O}},
};

static const struct cp3_field period_members[] = {
    {"index", &cp3_type_integer, VALUE(period_index), .max = CP3_INTEGER_MAX, .in = {M}},
};

/* clang-format off */
#define GROUP(array) .extension = true, .members = (array), .member_count = CP3_COUNT(array)

const struct cp3_field cp3_table[CP3_FIELD_COUNT] = {
    [CP3_FIELD_TAG] =
    {"Tag",         &cp3_type_integer, VALUE(tag),         .min = 1, .max = 4,       .in = {x, M, M, M, M}},
    {"Version",     &cp3_type_integer, VALUE(version),     HAS(has, CP3_HAS_VERSION),
     .max = CP3_INTEGER_MAX, .xml_max = UINT32_MAX,                                  .in = {x, O, O, O, O}},
    [CP3_FIELD_MESSAGE_ID] =
    {"MessageID",   &cp3_type_string,  VALUE(message_id),  .min = 1, .max = CP3_ID_MAX,
                                                                                     .in = {x, M, M, M, M}},
    {"ContentID",   &cp3_type_string,  VALUE(content_id),  .min = 1, .max = CP3_CONTENT_ID_MAX,
                                                                                     .in = {x, M, F, M, F}},
    {"Destination", &cp3_type_string,  VALUE(destination), .min = 1, .max = CP3_ID_MAX,
                                                                                     .in = {x, M, F, M, F}},
    {"Source",      &cp3_type_string,  VALUE(source),      .min = 1, .max = CP3_ID_MAX,
                                                                                     .in = {x, M, F, M, F}},
    {"Status",      &cp3_type_integer, VALUE(status),      .max = 1,                 .in = {x, x, M, x, M}},
    [CP3_FIELD_DATA] =
    {"Data",        &cp3_type_data,    VALUE(data),        .min = CP3_DATA_MIN, .max = CP3_DATA_MAX,
                                                                                     .in = {x, x, S, M, x}},
    {"Time",        &cp3_type_time,    VALUE(time),        HAS(has, CP3_HAS_TIME),   .in = {x, O, O, O, O}},
    {"KeyInfo",     NULL,              VALUE(key_info),    HAS(has, CP3_HAS_KEY_INFO),
     GROUP(key_info_members),                                                        .in = {x, x, O, O, x}},
    {"Period",      NULL,              VALUE(period_index), HAS(has, CP3_HAS_PERIOD),
     GROUP(period_members),                                                          .in = {x, O, x, x, x}},
};
/* clang-format on */

/* The root elements of the XML profile, by tag. */
static const struct {
    const char *root;
    bool efficient;
} messages[] = {
    [CP3_REQUEST] = {"KeyRequest", false},
    [CP3_RESPONSE] = {"KeyRequestResponse", true},
    [CP3_DELIVERY] = {"KeyDelivery", false},
    [CP3_CONFIRMATION] = {"KeyDeliveryConfirmation", true},
};

int cp3_table_find(const char *name, bool extension)
{
    for (int i = 0; i < CP3_FIELD_COUNT; i++) {
        if (cp3_table[i].extension == extension && strcmp(cp3_table[i].name, name) == 0)
            return i;
    }
    return -1;
}

const struct cp3_field *cp3_table_member(const struct cp3_field *group, const char *name)
{
    for (size_t i = 0; i < group->member_count; i++) {
        if (strcmp(group->members[i].name, name) == 0)
            return &group->members[i];
    }
    return NULL;
}

int cp3_table_root(const char *name)
{
    for (int tag = CP3_REQUEST; tag <= CP3_CONFIRMATION; tag++) {
        if (strcmp(messages[tag].root, name) == 0)
            return tag;
    }
    return 0;
}

bool cp3_table_has_efficient(int tag)
{
    return messages[tag].efficient;
}

const char *cp3_tag_name(enum cp3_tag tag)
{
    return tag >= CP3_REQUEST && tag <= CP3_CONFIRMATION ? messages[tag].root : NULL;
}
