/*
 * Whether two CP-3 messages say the same.  Shared by the unit tests and the fuzz targets.
 */
#ifndef CP3_EQUAL_H
#define CP3_EQUAL_H

#include <cp3.h>
#include <stdbool.h>

/* Equal in all that a form carries: CP3_EFFICIENT looks at Tag, MessageID, Status and Data. */
bool cp3_equal(const struct cp3_message *a, const struct cp3_message *b, enum cp3_form form);

#endif
