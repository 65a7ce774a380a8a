/* A plain end of a channel, written after mmapipc/LAYOUT.md:

       peer send NAME CAPACITY     sends standard input
       peer receive NAME           writes to standard output

   Exits 0 only if the stream was whole and delivered.  "LAYOUT 8" is that document's section 8. */

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "system.h"

/* LAYOUT 2.1 */
#define HEADER_SIZE 4096
#define MAGIC "mmapipc\002"
#define BEGUN "mmapipc\000"
#define PERSISTENT 1
#define LARGEST ((uint64_t)1 << 62)
#define LARGEST_PID 0xFFFFFFFFu
#define LONGEST_NAME 200

/* LAYOUT 2.2 */
enum {
    HEADER_BYTES = 8, CAPACITY = 16, STREAM_ID = 24, FLAGS = 32, OWNER = 40,
    WRITE_SEQ = 128, READ_SEQ = 256,
    SENDER_STATE = 384, SENDER_PID = 392, SENDER_CALLS = 400,
    RECEIVER_STATE = 512, RECEIVER_PID = 520, RECEIVER_CALLS = 528, RECEIVERS = 536
};

/* LAYOUT 2.3 */
enum { ABSENT, OPEN, FINISHED, ABORTED, CLOSED, DIED };

/* LAYOUT 2.4 */
#define LEFT 2

/* LAYOUT 10.4 */
#define FIRST_PARK 50 /* ms */
#define LONGEST_PARK 500
#define SEARCH 5
#define TIDYING 1000
#define LINGER 200 /* looks */

#define STEP (1 << 20) /* bytes at a time, at most */
#define LOOKS 50

enum { WHOLE, TROUBLE, USAGE, TAKEN, GONE, DAMAGED }; /* exit codes */
enum verdict { WAIT, READY, END, HAS_LEFT, GAVE_UP, HAS_DIED };

static const char *const roles[] = {"sender", "receiver"};
static const char *name;
static enum role role;
static _Atomic uint64_t *words;
static unsigned char *bytes;
static uint64_t capacity, known_write, known_read, rung;
static unsigned char buffer[STEP];

/* LAYOUT 2.2, 2.5: one step, and every order but the full one. */
static uint64_t load(int field)
{
    return atomic_load_explicit(&words[field / 8], memory_order_acquire);
}

/* LAYOUT 2.2, 2.5 */
static void store(int field, uint64_t value)
{
    atomic_store_explicit(&words[field / 8], value, memory_order_release);
}

/* LAYOUT 2.5 */
static void full_barrier(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

/* LAYOUT 11.1, 11.2: who cannot go on says so, and gives back. */
void fail(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "peer: %s: ", name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    give_back();
    exit(code);
}

/* LAYOUT 3 */
static void find_name(const char *given)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    static const char *const prefixes[] = {"Global\\", "Local\\"};
    char encoded[LONGEST_NAME + 4];
    const char *prefix = "";
    size_t length = 0;
    for (int i = 0; i < 2 && !*prefix; i++)
        if (strncmp(given, prefixes[i], strlen(prefixes[i])) == 0)
            prefix = prefixes[i];
    for (const char *at = given + strlen(prefix); *at && length <= LONGEST_NAME; at++)
        length += sprintf(encoded + length, strchr(plain, *at) ? "%c" : "%%%02X", (unsigned char)*at);
    if (length == 0 || length > LONGEST_NAME)
        fail(USAGE, "a name has 1 to %d characters once encoded", LONGEST_NAME);
    find_places(prefix, encoded, role);
}

/* LAYOUT 4.2, 5.1 */
static void claim(void)
{
    for (int waited = 0; !take_role(); waited++) {
        int64_t rival = holder(role);
        if (rival > 0)
            fail(TAKEN, "there is a %s already (pid %" PRId64 ")", roles[role], rival);
        if (waited > TIDYING)
            fail(TAKEN, "a stopped process still tidies up");
        pause_for(1);
    }
}

/* LAYOUT 2.3 */
static uint64_t sender_state(void)
{
    uint64_t state = load(SENDER_STATE);
    if (state == ABSENT || state == CLOSED || state > DIED)
        fail(DAMAGED, "sender state %" PRIu64, state);
    return state;
}

/* LAYOUT 2.3 */
static uint64_t receiver_state(void)
{
    uint64_t state = load(RECEIVER_STATE);
    if (state == FINISHED || state > DIED)
        fail(DAMAGED, "receiver state %" PRIu64, state);
    return state;
}

/* LAYOUT 9: the kernel names the pid that the header has. */
static int peer_lives(void)
{
    uint64_t pid = load(role == SENDER ? RECEIVER_PID : SENDER_PID);
    if (pid > LARGEST_PID)
        fail(DAMAGED, "pid %" PRIu64, pid);
    return pid && holder(!role) == (int64_t)pid;
}

/* LAYOUT 2.1, 2.2, 7 step 3: whether the memory that is open has a complete header; maps it. */
static int has_header(void)
{
    if (!memory_has(HEADER_SIZE))
        return 0;
    words = map_memory(HEADER_SIZE);
    uint64_t magic = load(0);
    if (magic == 0 || memcmp(&magic, BEGUN, 8) == 0)
        return 0;
    if (memcmp(&magic, MAGIC, 8) != 0)
        fail(DAMAGED, "not a channel, or one of another version");
    uint64_t flags = load(FLAGS);
    capacity = load(CAPACITY);
    if (load(HEADER_BYTES) != HEADER_SIZE || capacity < 1 || capacity > LARGEST || flags > PERSISTENT)
        fail(DAMAGED, "impossible sizes or flags");
    return 1;
}

/* LAYOUT 6 step 3: whether a receiver still reads an older stream. */
static int is_in_use(void)
{
    if (!has_header())
        return 0;
    if (sender_state() == OPEN)
        store(SENDER_STATE, DIED);
    return receiver_state() == OPEN && peer_lives();
}

/* LAYOUT 6 */
static void begin(uint64_t wanted)
{
    int lingered = 0;
    claim();
    for (;; pause_for(SEARCH)) {
        if (!open_memory()) {
            if (make_memory(HEADER_SIZE + wanted))
                break;
        } else {
            int in_use = is_in_use();
            close_memory();
            if (!in_use && lingered++ == LINGER)
                fail(TROUBLE, "somebody has the memory, and is not attached");
            if (!in_use)
                remove_memory();
        }
    }
    capacity = wanted;
    words = map_memory(HEADER_SIZE + capacity);
    bytes = (unsigned char *)words + HEADER_SIZE;
    store(HEADER_BYTES, HEADER_SIZE);
    store(CAPACITY, capacity);
    store(STREAM_ID, any_number());
    store(FLAGS, 0);
    store(OWNER, 0);
    store(SENDER_PID, own_pid());
    store(SENDER_STATE, OPEN);
    uint64_t magic;
    memcpy(&magic, MAGIC, 8);
    store(0, magic);
    open_bells();
}

/* LAYOUT 7 steps 4 and 5 */
static int wants_receiver(void)
{
    if (receiver_state() == OPEN)
        store(RECEIVER_STATE, DIED);
    int wanted = receiver_state() == ABSENT || load(FLAGS) == PERSISTENT;
    uint64_t state = sender_state();
    return wanted && (state == OPEN || state == FINISHED) && peer_lives();
}

/* LAYOUT 7 */
static void attach(void)
{
    claim();
    for (;; pause_for(SEARCH)) {
        if (!open_memory())
            continue;
        if (has_header() && wants_receiver())
            break;
        close_memory();
    }
    if (!memory_fits(HEADER_SIZE + capacity))
        fail(DAMAGED, "the capacity does not fit the size");
    words = map_memory(HEADER_SIZE + capacity);
    bytes = (unsigned char *)words + HEADER_SIZE;
    known_read = load(READ_SEQ);
    known_write = load(WRITE_SEQ);
    if (known_write < known_read || known_write - known_read > capacity || known_write > LARGEST)
        fail(DAMAGED, "impossible sequences");
    uint64_t receivers = load(RECEIVERS);
    if (receivers > LARGEST)
        fail(DAMAGED, "impossible number of receivers");
    store(RECEIVER_PID, own_pid());
    store(RECEIVER_CALLS, 0);
    store(RECEIVERS, receivers + 1);
    store(RECEIVER_STATE, OPEN);
    open_bells();
}

/* LAYOUT 8 */
static void refresh(void)
{
    if (role == SENDER) {
        uint64_t read = load(READ_SEQ);
        if (read < known_read || read > known_write)
            fail(DAMAGED, "read_seq %" PRIu64, read);
        known_read = read;
    } else {
        uint64_t write = load(WRITE_SEQ);
        if (write < known_write || write - known_read > capacity)
            fail(DAMAGED, "write_seq %" PRIu64, write);
        known_write = write;
    }
}

/* LAYOUT 9, for the sender */
static enum verdict look_at_receiver(int probe)
{
    uint64_t state = receiver_state();
    refresh();
    if (state == OPEN && probe && !peer_lives()) {
        full_barrier();
        state = receiver_state();
        refresh();
        if (state == OPEN)
            state = DIED;
    }
    switch (state) {
    case CLOSED: return HAS_LEFT;
    case ABORTED: return GAVE_UP;
    case DIED: return HAS_DIED;
    default: return known_write - known_read < capacity ? READY : WAIT;
    }
}

/* LAYOUT 11.1: what a sender that has finished waits for */
static enum verdict look_whether_delivered(int probe)
{
    enum verdict verdict = look_at_receiver(probe);
    if (known_read == known_write && receiver_state() != ABSENT)
        return END;
    return verdict == READY ? WAIT : verdict;
}

/* LAYOUT 9, for the receiver */
static enum verdict look_at_sender(int probe)
{
    uint64_t state = sender_state();
    refresh();
    if (known_write == known_read && state == OPEN && probe && !peer_lives()) {
        full_barrier();
        state = sender_state();
        refresh();
        if (state == OPEN)
            state = DIED;
    }
    if (known_write != known_read)
        return READY;
    switch (state) {
    case OPEN: return WAIT;
    case FINISHED: return END;
    case ABORTED: return GAVE_UP;
    default: return HAS_DIED;
    }
}

/* LAYOUT 10.3; without a bell 14 */
static enum verdict park(enum verdict (*look)(int), int milliseconds)
{
    if (!has_bell()) {
        pause_for(1);
        return look(0);
    }
    int own_calls = role == SENDER ? SENDER_CALLS : RECEIVER_CALLS;
    store(own_calls, 2 * (role == SENDER ? known_read : known_write) + 1);
    fence();
    enum verdict verdict = look(0);
    if (verdict == WAIT)
        sleep_on_bell(milliseconds);
    store(own_calls, 0);
    return verdict == WAIT ? look(0) : verdict;
}

/* LAYOUT 9, 10: look, then park, and ask now and then whether the peer lives */
static enum verdict wait_for_news(enum verdict (*look)(int))
{
    enum verdict verdict = look(0);
    for (int i = 0; i < LOOKS && verdict == WAIT; i++) {
        give_way();
        verdict = look(0);
    }
    for (int span = FIRST_PARK; verdict == WAIT; span = span < LONGEST_PARK / 2 ? 2 * span : LONGEST_PARK) {
        verdict = park(look, span);
        if (verdict == WAIT)
            verdict = look(1);
    }
    return verdict;
}

/* LAYOUT 10.1; `ended`: a state was stored, not a counter */
static void answer(int ended)
{
    full_barrier();
    uint64_t calls = load(role == SENDER ? RECEIVER_CALLS : SENDER_CALLS);
    if (calls & 1 && (ended || calls != rung)) {
        rung = calls;
        ring();
    }
}

/* LAYOUT 9, 11.1 */
static void check_receiver(enum verdict verdict)
{
    static const char *const how[] = {[HAS_LEFT] = "left early", [GAVE_UP] = "gave up", [HAS_DIED] = "died"};
    if (verdict >= HAS_LEFT) {
        uint64_t lost = known_write - known_read;
        store(SENDER_STATE, ABORTED);
        fail(GONE, "the receiver %s; %" PRIu64 " bytes were not delivered", how[verdict], lost);
    }
}

/* LAYOUT 8, for the sender */
static void put(const unsigned char *data, uint64_t size)
{
    while (size) {
        check_receiver(wait_for_news(look_at_receiver));
        uint64_t offset = known_write % capacity, count = capacity - (known_write - known_read);
        if (count > size)
            count = size;
        if (count > (capacity + 1) / 2)
            count = (capacity + 1) / 2;
        uint64_t first = count < capacity - offset ? count : capacity - offset;
        memcpy(bytes + offset, data, first);
        memcpy(bytes, data + first, count - first);
        known_write += count;
        store(WRITE_SEQ, known_write);
        answer(0);
        data += count;
        size -= count;
    }
}

/* LAYOUT 8, for the receiver: acknowledged when it is written */
static void take(void)
{
    uint64_t offset = known_read % capacity, count = known_write - known_read;
    if (count > (capacity + 1) / 2)
        count = (capacity + 1) / 2;
    if (count > STEP)
        count = STEP;
    uint64_t first = count < capacity - offset ? count : capacity - offset;
    memcpy(buffer, bytes + offset, first);
    memcpy(buffer + first, bytes, count - first);
    for (uint64_t done = 0; done < count;) {
        ssize_t written = write(STDOUT_FILENO, buffer + done, count - done);
        if (written < 0) {
            store(RECEIVER_CALLS, LEFT);
            store(RECEIVER_STATE, ABORTED);
            answer(1);
            fail(TROUBLE, "standard output failed");
        }
        done += written;
    }
    known_read += count;
    store(READ_SEQ, known_read);
    answer(0);
}

/* LAYOUT 11.1 */
static void finish(void)
{
    if (sender_state() != OPEN)
        fail(GONE, "another process has taken the stream");
    store(SENDER_STATE, FINISHED);
    answer(1);
    check_receiver(wait_for_news(look_whether_delivered));
    give_back();
}

/* LAYOUT 11.1: giving up */
static void give_up(void)
{
    if (sender_state() == OPEN)
        store(SENDER_STATE, ABORTED);
    answer(1);
    fail(TROUBLE, "standard input failed");
}

/* LAYOUT 11.2 */
static void leave(enum verdict verdict)
{
    store(RECEIVER_CALLS, LEFT);
    store(RECEIVER_STATE, CLOSED);
    answer(1);
    if (verdict != END)
        fail(GONE, "the sender %s; the stream stops after %" PRIu64 " bytes",
             verdict == GAVE_UP ? "gave up" : "died", known_read);
    give_back();
}

/* LAYOUT 1 */
int main(int argc, char **argv)
{
    int sends = argc == 4 && strcmp(argv[1], "send") == 0;
    uint64_t wanted = sends ? strtoull(argv[3], NULL, 10) : 0;
    if (sends ? wanted < 1 || wanted > LARGEST : argc != 3 || strcmp(argv[1], "receive") != 0) {
        fprintf(stderr, "usage: peer send NAME CAPACITY | peer receive NAME\n");
        return USAGE;
    }
    name = start(argv);
    role = sends ? SENDER : RECEIVER;
    find_name(name);
    if (sends) {
        begin(wanted);
        ssize_t count;
        while ((count = read(STDIN_FILENO, buffer, sizeof buffer)) > 0)
            put(buffer, count);
        if (count < 0)
            give_up();
        finish();
    } else {
        enum verdict verdict;
        attach();
        while ((verdict = wait_for_news(look_at_sender)) == READY)
            take();
        leave(verdict);
    }
    return WHOLE;
}
