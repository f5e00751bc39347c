/* A stand-in for libnvidia-ml.so.1. Its world is the text file $FAKE_NVML, read anew on every call:
 *   init RC           what nvmlInit answers
 *   gpus N            how many there are
 *   gpu I RC          every call for GPU I answers RC (15: lost)
 *   procs I N         how many processes GPU I runs
 *   mig I N           GPU I is divided into N instances
 *   used I MIB        memory in use
 *   epoch N           another number makes every handle given before invalid
 *   hang I 1          asking GPU I for its memory never returns
 *   action I N        the recovery that the driver asks for
 *   nov3 1, nov2memory 1   an old driver: these answer "function not found"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_FUNCTION = 13 };
#define MIB (1024ULL * 1024ULL)

/* Handles are 1..16 for GPUs, 100 * (gpu + 1) + index + 1 for MIG instances. */
typedef unsigned long handle_t;

static int state(const char *key, int index, int missing) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[128], word[32];
    int first, second, found = missing;
    if (!file) return missing;
    while (fgets(line, sizeof line, file)) {
        int count = sscanf(line, "%31s %d %d", word, &first, &second);
        if (count >= 2 && !strcmp(word, key)) {
            if (index < 0) found = first;
            else if (count == 3 && first == index) found = second;
        }
    }
    fclose(file);
    return found;
}

static int epoch(void) { return state("epoch", -1, 0); }
static handle_t current(handle_t handle) { return handle + 100000UL * epoch(); }
static int gpu_of(handle_t handle) {
    handle %= 100000;
    return handle >= 100 ? (int)(handle / 100) - 1 : (int)handle - 1;
}
static int condition(handle_t handle) {
    return (int)(handle / 100000) == epoch() ? state("gpu", gpu_of(handle), OK) : INVALID;
}
#define CHECK(handle) do { int rc = condition(handle); if (rc) return rc; } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; return state("init", -1, OK); }
int nvmlInit_v2(void) { return state("init", -1, OK); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int rc) { (void)rc; return "an error"; }

int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "575.57.08"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = state("gpus", -1, 0); return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t *handle) {
    *handle = current(index + 1);
    return condition(*handle);
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, handle_t *handle) {
    unsigned domain, bus;
    if (sscanf(pci, "%x:%x:", &domain, &bus) != 2 || (int)bus > state("gpus", -1, 0)) return NOT_FOUND;
    *handle = current(bus);
    return condition(*handle);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, handle_t *handle) {
    unsigned gpu, instance;
    if (sscanf(uuid, "MIG-%u-%u", &gpu, &instance) != 2) return NOT_FOUND;
    *handle = current(100 * (gpu + 1) + instance + 1);
    return condition(*handle);
}

int nvmlDeviceGetName(handle_t handle, char *text, unsigned size) {
    CHECK(handle);
    snprintf(text, size, handle >= 100 ? "NVIDIA Fake 80GB MIG 1g.10gb" : "NVIDIA Fake 80GB");
    return OK;
}

int nvmlDeviceGetUUID(handle_t handle, char *text, unsigned size) {
    CHECK(handle);
    if (handle >= 100) snprintf(text, size, "MIG-%d-%lu", gpu_of(handle), handle % 100 - 1);
    else snprintf(text, size, "GPU-%08lx-0000-0000-0000-000000000000", handle);
    return OK;
}

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(handle_t handle, struct pci *pci) {
    CHECK(handle);
    memset(pci, 0, sizeof *pci);
    pci->bus = handle;
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02lX:00.0", handle);
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(handle_t handle, int *major, int *minor) {
    CHECK(handle);
    *major = 9; *minor = 0;
    return OK;
}

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(handle_t handle, struct memory_v2 *memory) {
    CHECK(handle);
    if (state("hang", gpu_of(handle), 0)) for (;;) pause();
    if (state("nov2memory", -1, 0)) return NO_FUNCTION;
    if (memory->version != 0x02000028) return 25;
    memory->total = (handle >= 100 ? 10240 : 81920) * MIB;
    memory->reserved = 512 * MIB;
    memory->used = state("used", gpu_of(handle), 1024) * MIB;
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo(handle_t handle, struct memory *memory) {
    CHECK(handle);
    memory->total = 81920 * MIB;
    memory->used = (512 + state("used", gpu_of(handle), 1024)) * MIB;
    memory->free = memory->total - memory->used;
    return OK;
}

struct rates { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(handle_t handle, struct rates *rates) {
    CHECK(handle);
    if (handle >= 100) return NOT_SUPPORTED;
    rates->gpu = 37; rates->memory = 12;
    return OK;
}

#define NUMBER(function, type, number) \
    int function(handle_t handle, type *value) { CHECK(handle); *value = number; return OK; }
NUMBER(nvmlDeviceGetPowerUsage, unsigned, 123456)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 700000)
NUMBER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, 5000000)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 16)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0x24)

int nvmlDeviceGetTemperature(handle_t handle, int sensor, unsigned *celsius) {
    CHECK(handle);
    (void)sensor;
    *celsius = 55;
    return OK;
}
int nvmlDeviceGetClockInfo(handle_t handle, int clock, unsigned *mhz) {
    CHECK(handle);
    *mhz = clock == 0 ? 1500 : 2619;
    return OK;
}
int nvmlDeviceGetMaxClockInfo(handle_t handle, int clock, unsigned *mhz) {
    CHECK(handle);
    (void)clock;
    *mhz = 1980;
    return OK;
}

struct process { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; };
static int processes(handle_t handle, unsigned *count, struct process *list) {
    unsigned running = state("procs", gpu_of(handle), 0), room = *count;
    CHECK(handle);
    *count = running;
    if (room < running) return TOO_SMALL;
    for (unsigned i = 0; i < running; i++)
        list[i] = (struct process){ 1000 + i, i == 1 ? ~0ULL : (i + 1) * MIB, ~0U, ~0U };
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(handle_t handle, unsigned *count, struct process *list) {
    return state("nov3", -1, 0) ? NO_FUNCTION : processes(handle, count, list);
}
int nvmlDeviceGetComputeRunningProcesses_v2(handle_t handle, unsigned *count, struct process *list) {
    return processes(handle, count, list);
}

int nvmlDeviceGetMigMode(handle_t handle, unsigned *current, unsigned *pending) {
    CHECK(handle);
    *current = *pending = state("mig", gpu_of(handle), 0) > 0;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(handle_t handle, unsigned *count) { CHECK(handle); *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle_t handle, unsigned index, handle_t *instance) {
    CHECK(handle);
    if ((int)index >= state("mig", gpu_of(handle), 0)) return NOT_FOUND;
    *instance = handle * 100 + index + 1;
    return OK;
}

struct field { unsigned id, scope; long long at, latency; unsigned type, rc; unsigned long long value; };
int nvmlDeviceGetFieldValues(handle_t handle, int count, struct field *fields) {
    CHECK(handle);
    for (int i = 0; i < count; i++) {
        fields[i].rc = fields[i].id == 230 ? OK : NOT_SUPPORTED;
        fields[i].value = state("action", gpu_of(handle), 0);
    }
    return OK;
}
