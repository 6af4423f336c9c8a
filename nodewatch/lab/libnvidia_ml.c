/*
 * A libnvidia-ml.so.1 without a GPU: answers NVML calls from a state file, for rehearsing hardware faults.
 *
 * The file is /run/nodewatch-lab/hardware, or what NODEWATCH_LAB_HARDWARE names. Its lines, of which the last word on
 * a subject holds (the whole format stands in hardware.py; lines that are not for NVML are skipped):
 *
 *     driver VERSION
 *     gpu INDEX KEY VALUE
 *
 * with KEY one of: uuid serial bus name temperature lost ecc_corrected ecc_uncorrected remap_corrected
 * remap_uncorrected remap_pending remap_failed throttle pcie_generation pcie_width memory_used_mib utilization
 * power_mw. `lost 1` makes every call on that GPU answer NVML_ERROR_GPU_IS_LOST, as the real driver does once a GPU has
 * fallen off the bus, while the GPU still counts. No file means no driver: nvmlInit answers DRIVER_NOT_LOADED.
 *
 * The file is read again whenever it has changed, so a process that keeps NVML open sees the fault happen.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define API __attribute__((visibility("default")))
#define MAX_GPUS 16
#define MIB (1024ULL * 1024ULL)
#define MEMORY_TOTAL (81559ULL * MIB)
#define MEMORY_RESERVED (551ULL * MIB)

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
};

struct gpu {
    int present;
    char uuid[80], serial[30], bus[32], name[96];
    unsigned temperature, lost, remap_pending, remap_failed, pcie_generation, pcie_width, utilization, power_mw;
    unsigned remap_corrected, remap_uncorrected;
    unsigned long long ecc_corrected, ecc_uncorrected, throttle, memory_used_mib;
};

struct pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct memory {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

struct utilization {
    unsigned gpu, memory;
};

struct histogram {
    unsigned max, high, partial, low, none;
};

struct temperature_v1 {
    unsigned version, sensor;
    int temperature;
};

/* A handle is the address of a GPU's slot; the slots never move. */
static struct gpu gpus[MAX_GPUS];
static char driver[80];
static struct stat seen;
static int inits;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *state_file(void)
{
    const char *named = getenv("NODEWATCH_LAB_HARDWARE");
    return named && *named ? named : "/run/nodewatch-lab/hardware";
}

static void set_text(char *field, size_t size, const char *value)
{
    snprintf(field, size, "%.*s", (int)size - 1, value);
}

static void set_value(struct gpu *gpu, const char *key, const char *value)
{
    unsigned long long number = strtoull(value, NULL, 0);

    if (!strcmp(key, "uuid"))
        set_text(gpu->uuid, sizeof gpu->uuid, value);
    else if (!strcmp(key, "serial"))
        set_text(gpu->serial, sizeof gpu->serial, value);
    else if (!strcmp(key, "bus"))
        set_text(gpu->bus, sizeof gpu->bus, value);
    else if (!strcmp(key, "name"))
        set_text(gpu->name, sizeof gpu->name, value);
    else if (!strcmp(key, "temperature"))
        gpu->temperature = (unsigned)number;
    else if (!strcmp(key, "lost"))
        gpu->lost = (unsigned)number;
    else if (!strcmp(key, "ecc_corrected"))
        gpu->ecc_corrected = number;
    else if (!strcmp(key, "ecc_uncorrected"))
        gpu->ecc_uncorrected = number;
    else if (!strcmp(key, "remap_corrected"))
        gpu->remap_corrected = (unsigned)number;
    else if (!strcmp(key, "remap_uncorrected"))
        gpu->remap_uncorrected = (unsigned)number;
    else if (!strcmp(key, "remap_pending"))
        gpu->remap_pending = (unsigned)number;
    else if (!strcmp(key, "remap_failed"))
        gpu->remap_failed = (unsigned)number;
    else if (!strcmp(key, "throttle"))
        gpu->throttle = number;
    else if (!strcmp(key, "pcie_generation"))
        gpu->pcie_generation = (unsigned)number;
    else if (!strcmp(key, "pcie_width"))
        gpu->pcie_width = (unsigned)number;
    else if (!strcmp(key, "memory_used_mib"))
        gpu->memory_used_mib = number;
    else if (!strcmp(key, "utilization"))
        gpu->utilization = (unsigned)number;
    else if (!strcmp(key, "power_mw"))
        gpu->power_mw = (unsigned)number;
}

/* Reads the state file if it is another one than last time, or longer, or newer. The lock is held. */
static int refresh(void)
{
    struct stat now;
    FILE *file;
    char line[512], key[32];
    unsigned index;
    int value_at;

    if (stat(state_file(), &now) != 0)
        return DRIVER_NOT_LOADED;
    if (now.st_ino == seen.st_ino && now.st_size == seen.st_size && now.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return SUCCESS;
    file = fopen(state_file(), "re");
    if (!file)
        return DRIVER_NOT_LOADED;
    memset(gpus, 0, sizeof gpus);
    driver[0] = '\0';
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (!strncmp(line, "driver ", 7)) {
            set_text(driver, sizeof driver, line + 7);
        } else if (sscanf(line, "gpu %u %31s %n", &index, key, &value_at) == 2 && index < MAX_GPUS) {
            struct gpu *gpu = &gpus[index];
            if (!gpu->present) {
                gpu->present = 1;
                gpu->pcie_generation = 5;
                gpu->pcie_width = 16;
                gpu->power_mw = 70000;
                gpu->temperature = 30;
            }
            set_value(gpu, key, line + value_at);
        }
    }
    fclose(file);
    seen = now;
    return SUCCESS;
}

static unsigned count(void)
{
    unsigned found = 0;

    while (found < MAX_GPUS && gpus[found].present)
        found++;
    return found;
}

/* What a call on the library as a whole does first. */
static int library_ready(void)
{
    int answer = UNINITIALIZED;

    pthread_mutex_lock(&lock);
    if (inits > 0)
        answer = refresh();
    pthread_mutex_unlock(&lock);
    return answer;
}

/* What a call on one GPU does first. */
static int gpu_ready(const struct gpu *gpu)
{
    int answer = library_ready();

    if (answer != SUCCESS)
        return answer;
    if (gpu < gpus || gpu >= gpus + MAX_GPUS || !gpu->present)
        return INVALID_ARGUMENT;
    return gpu->lost ? GPU_IS_LOST : SUCCESS;
}

static int copy_out(char *buffer, unsigned length, const char *text)
{
    if (!buffer)
        return INVALID_ARGUMENT;
    if (strlen(text) + 1 > length)
        return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return SUCCESS;
}

/* One GPU, one number: the shape of most of NVML's questions. */
#define NUMBER(function, type, expression)                                                                             \
    API int function(struct gpu *gpu, type *out)                                                                       \
    {                                                                                                                  \
        int answer = gpu_ready(gpu);                                                                                   \
        if (answer == SUCCESS && !out)                                                                                 \
            answer = INVALID_ARGUMENT;                                                                                 \
        if (answer == SUCCESS)                                                                                         \
            *out = (type)(expression);                                                                                 \
        return answer;                                                                                                 \
    }

API int nvmlInitWithFlags(unsigned flags)
{
    int answer;

    (void)flags;
    pthread_mutex_lock(&lock);
    answer = refresh();
    if (answer == SUCCESS)
        inits++;
    pthread_mutex_unlock(&lock);
    return answer;
}

API int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

API int nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

API int nvmlShutdown(void)
{
    int answer = UNINITIALIZED;

    pthread_mutex_lock(&lock);
    if (inits > 0) {
        inits--;
        answer = SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

API const char *nvmlErrorString(int error)
{
    switch (error) {
    case SUCCESS:
        return "Success";
    case UNINITIALIZED:
        return "Uninitialized";
    case INVALID_ARGUMENT:
        return "Invalid Argument";
    case NOT_SUPPORTED:
        return "Not Supported";
    case NOT_FOUND:
        return "Not Found";
    case INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case GPU_IS_LOST:
        return "GPU is lost";
    default:
        return "Unknown Error";
    }
}

API int nvmlSystemGetDriverVersion(char *buffer, unsigned length)
{
    int answer = library_ready();
    return answer == SUCCESS ? copy_out(buffer, length, driver) : answer;
}

API int nvmlSystemGetNVMLVersion(char *buffer, unsigned length)
{
    char text[96];
    int answer = library_ready();

    /* NVML's own version is the CUDA generation, then the driver's version. */
    snprintf(text, sizeof text, "12.%s", driver);
    return answer == SUCCESS ? copy_out(buffer, length, text) : answer;
}

API int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    int answer = library_ready();

    if (answer == SUCCESS)
        *version = 12080;
    return answer;
}

API int nvmlSystemGetCudaDriverVersion(int *version)
{
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

API int nvmlDeviceGetCount_v2(unsigned *out)
{
    int answer = library_ready();

    if (answer == SUCCESS)
        *out = count();
    return answer;
}

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **out)
{
    int answer = library_ready();

    if (answer != SUCCESS)
        return answer;
    if (!out || index >= count())
        return INVALID_ARGUMENT;
    if (gpus[index].lost)
        return GPU_IS_LOST;
    *out = &gpus[index];
    return SUCCESS;
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, struct gpu **out)
{
    int answer = library_ready();

    if (answer != SUCCESS)
        return answer;
    for (unsigned index = 0; index < count(); index++) {
        if (!strcmp(gpus[index].uuid, uuid))
            return nvmlDeviceGetHandleByIndex_v2(index, out);
    }
    return NOT_FOUND;
}

API int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, struct gpu **out)
{
    int answer = library_ready();
    size_t asked = strlen(bus);

    if (answer != SUCCESS)
        return answer;
    for (unsigned index = 0; index < count(); index++) {
        size_t full = strlen(gpus[index].bus);
        /* The PCI domain has eight digits here and four in the kernel's words; both are accepted. */
        if (asked <= full && !strcasecmp(gpus[index].bus + full - asked, bus))
            return nvmlDeviceGetHandleByIndex_v2(index, out);
    }
    return NOT_FOUND;
}

API int nvmlDeviceGetUUID(struct gpu *gpu, char *buffer, unsigned length)
{
    int answer = gpu_ready(gpu);
    return answer == SUCCESS ? copy_out(buffer, length, gpu->uuid) : answer;
}

API int nvmlDeviceGetSerial(struct gpu *gpu, char *buffer, unsigned length)
{
    int answer = gpu_ready(gpu);
    return answer == SUCCESS ? copy_out(buffer, length, gpu->serial) : answer;
}

API int nvmlDeviceGetName(struct gpu *gpu, char *buffer, unsigned length)
{
    int answer = gpu_ready(gpu);
    return answer == SUCCESS ? copy_out(buffer, length, gpu->name) : answer;
}

API int nvmlDeviceGetPciInfo_v3(struct gpu *gpu, struct pci *out)
{
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    memset(out, 0, sizeof *out);
    sscanf(gpu->bus, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    snprintf(out->bus_id, sizeof out->bus_id, "%.31s", gpu->bus);
    snprintf(out->bus_id_legacy, sizeof out->bus_id_legacy, "%04X:%02X:%02X.0", out->domain & 0xffffu,
             out->bus & 0xffu, out->device & 0xffu);
    out->device_id = 0x233010deu;
    out->subsystem_id = 0x16c110deu;
    return SUCCESS;
}

NUMBER(nvmlDeviceGetIndex, unsigned, gpu - gpus)
NUMBER(nvmlDeviceGetMinorNumber, unsigned, gpu - gpus)
NUMBER(nvmlDeviceGetPersistenceMode, unsigned, 1)
NUMBER(nvmlDeviceGetPowerUsage, unsigned, gpu->power_mw)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 700000)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, gpu->throttle)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, gpu->throttle)
NUMBER(nvmlDeviceGetSupportedClocksThrottleReasons, unsigned long long, 0x1ff)
NUMBER(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, 0x1ff)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, gpu->pcie_generation)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, gpu->pcie_width)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, 16)
NUMBER(nvmlDeviceGetGpuMaxPcieLinkGeneration, unsigned, 5)
NUMBER(nvmlDeviceGetPcieReplayCounter, unsigned, 0)

API int nvmlDeviceGetTemperature(struct gpu *gpu, unsigned sensor, unsigned *out)
{
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    if (sensor != 0)
        return INVALID_ARGUMENT;
    *out = gpu->temperature;
    return SUCCESS;
}

API int nvmlDeviceGetTemperatureV(struct gpu *gpu, struct temperature_v1 *out)
{
    int answer = gpu_ready(gpu);

    if (answer == SUCCESS)
        out->temperature = (int)gpu->temperature;
    return answer;
}

API int nvmlDeviceGetTemperatureThreshold(struct gpu *gpu, unsigned threshold, unsigned *out)
{
    /* Shutdown, slowdown, memory, GPU: what an H100 says. The others it does not have. */
    static const unsigned degrees[] = {92, 89, 95, 87};
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    if (threshold >= sizeof degrees / sizeof degrees[0])
        return NOT_SUPPORTED;
    *out = degrees[threshold];
    return SUCCESS;
}

API int nvmlDeviceGetRemappedRows(struct gpu *gpu, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                                  unsigned *failed)
{
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    *corrected = gpu->remap_corrected;
    *uncorrected = gpu->remap_uncorrected;
    *pending = gpu->remap_pending;
    *failed = gpu->remap_failed;
    return SUCCESS;
}

API int nvmlDeviceGetRowRemapperHistogram(struct gpu *gpu, struct histogram *out)
{
    unsigned used;
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    /* Each remapped row takes one of its bank's spares: that bank is then "high" instead of "max". */
    used = gpu->remap_corrected + gpu->remap_uncorrected;
    memset(out, 0, sizeof *out);
    out->none = gpu->remap_failed ? 1 : 0;
    out->high = used > out->none ? used - out->none : 0;
    out->max = 3072 > out->high + out->none ? 3072 - out->high - out->none : 0;
    return SUCCESS;
}

API int nvmlDeviceGetMemoryInfo(struct gpu *gpu, struct memory *out)
{
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    out->total = MEMORY_TOTAL;
    out->used = gpu->memory_used_mib * MIB + MEMORY_RESERVED;
    out->free = out->total - out->used;
    return SUCCESS;
}

API int nvmlDeviceGetMemoryInfo_v2(struct gpu *gpu, struct memory_v2 *out)
{
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    out->total = MEMORY_TOTAL;
    out->reserved = MEMORY_RESERVED;
    out->used = gpu->memory_used_mib * MIB;
    out->free = out->total - out->reserved - out->used;
    return SUCCESS;
}

API int nvmlDeviceGetEccMode(struct gpu *gpu, unsigned *current, unsigned *pending)
{
    int answer = gpu_ready(gpu);

    if (answer == SUCCESS)
        *current = *pending = 1;
    return answer;
}

API int nvmlDeviceGetTotalEccErrors(struct gpu *gpu, unsigned type, unsigned counter, unsigned long long *out)
{
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    if (type > 1 || counter > 1)
        return INVALID_ARGUMENT;
    *out = type == 0 ? gpu->ecc_corrected : gpu->ecc_uncorrected;
    return SUCCESS;
}

API int nvmlDeviceGetMemoryErrorCounter(struct gpu *gpu, unsigned type, unsigned counter, unsigned location,
                                        unsigned long long *out)
{
    int answer = nvmlDeviceGetTotalEccErrors(gpu, type, counter, out);

    /* All errors are in device memory (location 2); caches and register files have none. */
    if (answer == SUCCESS && location != 2)
        *out = 0;
    return answer;
}

API int nvmlDeviceGetUtilizationRates(struct gpu *gpu, struct utilization *out)
{
    int answer = gpu_ready(gpu);

    if (answer != SUCCESS)
        return answer;
    out->gpu = gpu->utilization;
    out->memory = gpu->utilization / 2;
    return SUCCESS;
}

API int nvmlDeviceGetComputeRunningProcesses_v3(struct gpu *gpu, unsigned *number, void *processes)
{
    int answer = gpu_ready(gpu);

    (void)processes;
    if (answer == SUCCESS)
        *number = 0;
    return answer;
}

API int nvmlDeviceGetComputeRunningProcesses_v2(struct gpu *gpu, unsigned *number, void *processes)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(gpu, number, processes);
}

API int nvmlDeviceGetComputeRunningProcesses(struct gpu *gpu, unsigned *number, void *processes)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(gpu, number, processes);
}

API int nvmlDeviceGetMigMode(struct gpu *gpu, unsigned *current, unsigned *pending)
{
    int answer = gpu_ready(gpu);

    if (answer == SUCCESS)
        *current = *pending = 0;
    return answer;
}
