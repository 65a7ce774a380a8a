/* What peer.c wants of the system; posix.c and windows.c each have it. */

#include <stddef.h>
#include <stdint.h>

enum role { SENDER, RECEIVER };

/* Of peer.c: says what is wrong, gives everything back, and ends the program. */
void fail(int code, const char *format, ...);

/* The name from the command line, in UTF-8; data that comes and goes is bytes. */
const char *start(char **argv);

/* Section 3: where everything of that name is, for an end of that role. */
void find_places(const char *prefix, const char *encoded, enum role role);

/* Roles: sections 4.2, 5.1. */
int take_role(void);              /* whether it was free */
int64_t holder(enum role role);   /* pid; 0: nobody; -1: somebody tidies up, or has left */
uint32_t own_pid(void);

/* Memory: sections 4.3, 5.2. */
int open_memory(void);            /* whether there is any */
int make_memory(uint64_t size);   /* 0: look again */
void remove_memory(void);         /* what nobody needs, and is closed */
int memory_has(uint64_t size);    /* at least as many bytes */
int memory_fits(uint64_t size);   /* exactly as many, as the system counts them */
void *map_memory(uint64_t size);  /* of one mapping at a time */
void close_memory(void);          /* and unmap it */

/* Bells and fences: sections 10.2, 10.3. */
void open_bells(void);
int has_bell(void);
void ring(void);
void sleep_on_bell(int milliseconds);
void fence(void);

/* Sections 4.4, 5.3. */
void give_back(void);

/* Time, and chance. */
void give_way(void);
void pause_for(int milliseconds);
uint64_t any_number(void);
