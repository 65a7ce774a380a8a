/* Windows, for peer.c: written after mmapipc/LAYOUT.md. */

#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

#include "system.h"

enum { TROUBLE = 1 };

#define LONGEST_TAG 300

/* LAYOUT 5.1 */
#define QUERY_STATE 0x0001
#define BASIC_INFORMATION 0
struct basic_information { LONG current_count, maximum_count; };
typedef LONG(WINAPI *query_semaphore_type)(HANDLE, int, void *, ULONG, ULONG *);

static enum role own;
static char memory_tag[LONGEST_TAG], role_tags[2][LONGEST_TAG], bell_tags[2][LONGEST_TAG];
static HANDLE claimed, memory, bells[2];
static void *mapped;

/* LAYOUT 3: the name is UTF-8 */
const char *start(char **argv)
{
    static char name[1000];
    int count;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    if (!wide || !WideCharToMultiByte(CP_UTF8, 0, wide[2], -1, name, sizeof name, NULL, NULL))
        fail(TROUBLE, "%s is no name", argv[2]);
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
    return name;
}

/* LAYOUT 3 */
void find_places(const char *prefix, const char *encoded, enum role role)
{
    own = role;
    int length = snprintf(memory_tag, LONGEST_TAG - 20, "%smmapipc.%s", prefix, encoded);
    sprintf(role_tags[SENDER], "%.*s+sender", length, memory_tag);
    sprintf(role_tags[RECEIVER], "%.*s+receiver", length, memory_tag);
    sprintf(bell_tags[SENDER], "%.*s+sender-bell", length, memory_tag);
    sprintf(bell_tags[RECEIVER], "%.*s+receiver-bell", length, memory_tag);
}

/* LAYOUT 5.1 */
int take_role(void)
{
    claimed = CreateSemaphoreA(NULL, 0, GetCurrentProcessId(), role_tags[own]);
    DWORD error = GetLastError();
    if (!claimed)
        fail(TROUBLE, "%s: error %lu", role_tags[own], error);
    if (error == ERROR_ALREADY_EXISTS) {
        CloseHandle(claimed);
        claimed = NULL;
    }
    return claimed != NULL;
}

/* LAYOUT 5.1: whether a process lives */
static int lives(DWORD pid)
{
    HANDLE process = OpenProcess(SYNCHRONIZE, FALSE, pid);
    if (!process)
        return GetLastError() == ERROR_ACCESS_DENIED;
    int running = WaitForSingleObject(process, 0) == WAIT_TIMEOUT;
    CloseHandle(process);
    return running;
}

/* LAYOUT 5.1 */
int64_t holder(enum role role)
{
    static query_semaphore_type query;
    struct basic_information seen = {0, 0};
    if (!query)
        query = (query_semaphore_type)(void *)GetProcAddress(GetModuleHandleA("ntdll"), "NtQuerySemaphore");
    HANDLE semaphore = OpenSemaphoreA(QUERY_STATE, FALSE, role_tags[role]);
    if (!semaphore) {
        DWORD error = GetLastError();
        if (error != ERROR_FILE_NOT_FOUND && error != ERROR_PATH_NOT_FOUND)
            fail(TROUBLE, "%s: error %lu", role_tags[role], error);
        return 0;
    }
    query(semaphore, BASIC_INFORMATION, &seen, sizeof seen, NULL);
    CloseHandle(semaphore);
    int holds = !seen.current_count && seen.maximum_count > 0 && lives(seen.maximum_count);
    return holds ? seen.maximum_count : -1;
}

/* LAYOUT 2.2 */
uint32_t own_pid(void)
{
    return GetCurrentProcessId();
}

/* LAYOUT 5.2 */
int open_memory(void)
{
    memory = OpenFileMappingA(FILE_MAP_READ | FILE_MAP_WRITE, FALSE, memory_tag);
    if (!memory && GetLastError() != ERROR_FILE_NOT_FOUND)
        fail(TROUBLE, "%s: error %lu", memory_tag, GetLastError());
    return memory != NULL;
}

/* LAYOUT 5.2 */
int make_memory(uint64_t size)
{
    DWORD high = size >> 32, low = (DWORD)size;
    memory = CreateFileMappingA(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, high, low, memory_tag);
    DWORD error = GetLastError();
    if (!memory)
        fail(TROUBLE, "%s: error %lu", memory_tag, error);
    if (error == ERROR_ALREADY_EXISTS)
        close_memory();
    return memory != NULL;
}

/* LAYOUT 6 step 4: it goes with the last who has it open */
void remove_memory(void)
{
}

/* LAYOUT 5.2: in whole pages */
static uint64_t memory_size(void)
{
    MEMORY_BASIC_INFORMATION about = {0};
    void *view = MapViewOfFile(memory, FILE_MAP_READ, 0, 0, 0);
    if (!view)
        fail(TROUBLE, "%s: error %lu", memory_tag, GetLastError());
    VirtualQuery(view, &about, sizeof about);
    UnmapViewOfFile(view);
    return about.RegionSize;
}

/* LAYOUT 7 step 2 */
int memory_has(uint64_t size)
{
    return memory_size() >= size;
}

/* LAYOUT 5.2 */
int memory_fits(uint64_t size)
{
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return memory_size() == (size + info.dwPageSize - 1) / info.dwPageSize * info.dwPageSize;
}

/* LAYOUT 5.2 */
void *map_memory(uint64_t size)
{
    if (mapped)
        UnmapViewOfFile(mapped);
    mapped = MapViewOfFile(memory, FILE_MAP_READ | FILE_MAP_WRITE, 0, 0, size);
    if (!mapped)
        fail(TROUBLE, "%s: error %lu", memory_tag, GetLastError());
    return mapped;
}

/* LAYOUT 5.2, 5.3 */
void close_memory(void)
{
    if (mapped)
        UnmapViewOfFile(mapped);
    if (memory)
        CloseHandle(memory);
    mapped = memory = NULL;
}

/* LAYOUT 10.2, 14: without bells if they cannot be had, or are not wanted */
void open_bells(void)
{
    if (getenv("MMAPIPC_NO_BELLS"))
        return;
    for (int role = SENDER; role <= RECEIVER; role++)
        bells[role] = CreateSemaphoreA(NULL, 0, 1, bell_tags[role]);
}

/* LAYOUT 10.2 */
int has_bell(void)
{
    return bells[own] != NULL;
}

/* LAYOUT 10.2 */
void ring(void)
{
    if (bells[!own])
        ReleaseSemaphore(bells[!own], 1, NULL);
}

/* LAYOUT 10.2 */
void sleep_on_bell(int milliseconds)
{
    WaitForSingleObject(bells[own], milliseconds);
}

/* LAYOUT 10.3: there is none but our own barrier */
void fence(void)
{
    __sync_synchronize();
}

/* LAYOUT 5.3 */
void give_back(void)
{
    close_memory();
    for (int role = SENDER; role <= RECEIVER; role++)
        if (bells[role])
            CloseHandle(bells[role]);
    if (claimed) {
        ReleaseSemaphore(claimed, 1, NULL);
        CloseHandle(claimed);
    }
}

/* LAYOUT 10: between two looks */
void give_way(void)
{
    Sleep(0);
}

/* LAYOUT 10: between two looks */
void pause_for(int milliseconds)
{
    Sleep(milliseconds);
}

/* LAYOUT 2.2: a stream_id */
uint64_t any_number(void)
{
    LARGE_INTEGER ticks;
    QueryPerformanceCounter(&ticks);
    return (uint64_t)ticks.QuadPart * 0x9E3779B97F4A7C15u ^ (uint64_t)GetCurrentProcessId() << 32;
}
