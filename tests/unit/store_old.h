/*
 * A database of schema 1, as a tekd before deliveries left it: made of one of today, whose rows go
 * into the tables of tests/data/store/schema_1.sql.
 */
#ifndef TEST_STORE_OLD_H
#define TEST_STORE_OLD_H

#include "store_fixture.h"

/* Contents, TEKs, KEKs and what was exported, in an open store of today. */
void old_log_rows(struct fixture *f);

/* Puts the rows of a closed database of today into the tables of schema 1. */
void old_log_convert(struct fixture *f);

/* Both, with the store closed before and after. */
void old_log_make(struct fixture *f);

/* The first column of the first row that sql gives, as a number. */
int old_log_number(struct fixture *f, const char *sql);

/* The schema that the database says it has. */
int old_log_schema(struct fixture *f);

/* Fails the test unless an open store has the old rows and takes new ones. */
void old_log_serves(struct fixture *f);

#endif
