/*
 * Microcode that a processor under TCG takes: see README.md beside the source.
 *
 * Copyright: the fleet.microcode authors
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "cpu.h"
#include "cpu-internal.h"
#include "exec/cpu-all.h"
#include "exec/exec-all.h"
#include "hw/i386/topology.h"

#define NO_REVISION INT64_MIN
#define INTEL_HEADER 48
#define INTEL_TABLE_HEADER 20
#define INTEL_TABLE_ENTRY 12
#define INTEL_LONGEST (4 << 20)
#define AMD_HEADER 64

static QemuMutex lock; /* of all revisions and logs */

static void __attribute__((constructor)) make_lock(void)
{
    qemu_mutex_init(&lock);
}

/* Properties */

static bool parse_revision(const char *text, int64_t *revision)
{
    if (qemu_strtoi64(text, NULL, 0, revision) || *revision < INT32_MIN || *revision > UINT32_MAX) {
        return false;
    }
    *revision = (int32_t)*revision;
    return true;
}

static bool parse_property(const char *name, const char *text, int64_t *revision, Error **errp)
{
    *revision = NO_REVISION;
    if (text && !parse_revision(text, revision)) {
        error_setg(errp, "%s=%s is no revision: a signed 32-bit number is wanted, such as 0x02007006", name, text);
        return false;
    }
    return true;
}

static FeatureWord feature_word(const MicrocodeRule *rule)
{
    FeatureWord word;

    for (word = 0; word < FEATURE_WORDS; word++) {
        const FeatureWordInfo *info = &feature_word_info[word];
        if (info->type == CPUID_FEATURE_WORD && info->cpuid.eax == rule->leaf && info->cpuid.reg == rule->reg
            && (!info->cpuid.needs_ecx || info->cpuid.ecx == rule->subleaf)) {
            break;
        }
    }
    return word;
}

static bool parse_rule(const char *text, MicrocodeRule *rule)
{
    g_auto(GStrv) part = g_strsplit(text, "/", -1);
    static const char *const registers[] = { [R_EAX] = "eax", [R_ECX] = "ecx", [R_EDX] = "edx", [R_EBX] = "ebx" };
    int64_t revision;

    if (g_strv_length(part) != 5 || !parse_revision(part[0], &revision)
        || qemu_strtoui(part[1], NULL, 0, &rule->leaf) || qemu_strtoui(part[2], NULL, 0, &rule->subleaf)
        || qemu_strtoui(part[4], NULL, 0, &rule->mask) || !rule->mask) {
        return false;
    }
    rule->revision = revision;
    for (rule->reg = 0; rule->reg < ARRAY_SIZE(registers); rule->reg++) {
        if (!g_ascii_strcasecmp(part[3], registers[rule->reg])) {
            rule->word = feature_word(rule);
            return true;
        }
    }
    return false;
}

static bool parse_rules(Microcode *m, const char *name, const char *text, bool add, Error **errp)
{
    g_auto(GStrv) each = g_strsplit(text ?: "", ":", -1);

    for (int i = 0; each[i]; i++) {
        if (m->rules_count == MICROCODE_RULES) {
            error_setg(errp, "%s=%s: more than %d rules of ucode-add and ucode-withdraw", name, text, MICROCODE_RULES);
            return false;
        }
        if (!parse_rule(each[i], &m->rules[m->rules_count])) {
            error_setg(errp, "%s=%s: '%s' is not REVISION/LEAF/SUBLEAF/REGISTER/MASK, such as 0x02007006/7/0/ebx/0x800", name, text, each[i]);
            return false;
        }
        m->rules[m->rules_count++].add = add;
    }
    return true;
}

/* The log */

static void G_GNUC_PRINTF(2, 3) log_event(X86CPU *cpu, const char *format, ...)
{
    Microcode *m = &cpu->microcode;
    int64_t now = g_get_real_time();
    g_autofree char *event = NULL, *line = NULL;
    va_list arguments;

    if (m->log_fd < 0) {
        return;
    }
    va_start(arguments, format);
    event = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    line = g_strdup_printf("{\"time\": %" PRId64 ".%06d, \"cpu\": %d, \"event\": %s, \"revision\": \"0x%08x\"}\n",
                           now / G_USEC_PER_SEC, (int)(now % G_USEC_PER_SEC), CPU(cpu)->cpu_index, event, m->revision);
    if (write(m->log_fd, line, strlen(line)) < 0) {
        error_report_once("ucode-log=%s cannot be written: %s", m->log, strerror(errno));
    }
}

/* What a revision makes of a processor */

static bool running(const Microcode *m, const MicrocodeRule *rule)
{
    return qatomic_read(&m->revision) >= rule->revision;
}

/* In the processor's own thread, or while it does not run. */
static void follow_revision(CPUState *cs, run_on_cpu_data unused)
{
    X86CPU *cpu = X86_CPU(cs);
    Microcode *m = &cpu->microcode;
    uint32_t active = 0;

    memcpy(cpu->env.features, m->features, sizeof(m->features));
    for (int i = 0; i < m->rules_count; i++) {
        const MicrocodeRule *rule = &m->rules[i];
        if (running(m, rule)) {
            active |= 1 << i;
            if (rule->word < FEATURE_WORDS && rule->add) {
                cpu->env.features[rule->word] |= rule->mask;
            } else if (rule->word < FEATURE_WORDS) {
                cpu->env.features[rule->word] &= ~(uint64_t)rule->mask;
            }
        }
    }
    /* code is translated for the features of one processor, and must not run on one that differs */
    cs->tcg_cflags = (cs->tcg_cflags & ~CF_CLUSTER_MASK) | (0xff ^ active) << CF_CLUSTER_SHIFT;
    if (m->stopped) {
        cs->halted = 1;
    }
}

static bool has_subleaves(uint32_t leaf)
{
    switch (leaf) {
    case 4: case 7: case 0xb: case 0xd: case 0xf: case 0x10: case 0x12: case 0x14: case 0x17 ... 0x20: case 0x23: case 0x24:
    case 0x8000001d: case 0x80000020: case 0x80000026:
        return true;
    }
    return false;
}

void microcode_cpuid(CPUX86State *env, uint32_t leaf, uint32_t subleaf)
{
    Microcode *m = &env_archcpu(env)->microcode;

    /* Intel's manual names leaf 1; Xen (xen/arch/x86/cpu/microcode/intel.c) relies on any, and executes leaf 0 after an update */
    m->sign_id = (uint64_t)(uint32_t)qatomic_read(&m->revision) << 32;
    for (int i = 0; i < m->rules_count; i++) {
        const MicrocodeRule *rule = &m->rules[i];
        if (rule->leaf == leaf && (rule->subleaf == subleaf || !has_subleaves(leaf)) && running(m, rule)) {
            uint32_t old = env->regs[rule->reg];
            env->regs[rule->reg] = rule->add ? old | rule->mask : old & ~rule->mask;
        }
    }
}

/* Checks: what they return is the log's word for why an update is not taken, or NULL; offered stays as it is if unknown */

static bool read_guest(X86CPU *cpu, uint64_t address, void *to, size_t length)
{
    return address + length >= address && !cpu_memory_rw_debug(CPU(cpu), address, to, length, false);
}

static uint32_t sum(const uint8_t *data, size_t length)
{
    uint32_t total = 0;

    for (size_t i = 0; i + 4 <= length; i += 4) {
        total += ldl_le_p(data + i);
    }
    return total;
}

static const char *check_intel(X86CPU *cpu, uint64_t data, int64_t *offered)
{
    uint32_t mine = cpu->env.cpuid_version, bit = 1 << cpu->microcode.platform;
    uint8_t header[INTEL_HEADER];
    g_autofree uint8_t *update = NULL;
    const uint8_t *table;
    uint32_t length, total, count = 0;
    bool known = false;

    if (data < INTEL_HEADER || !read_guest(cpu, data - INTEL_HEADER, header, INTEL_HEADER)) {
        return "header";
    }
    *offered = (int32_t)ldl_le_p(header + 4);
    length = ldl_le_p(header + 28);
    total = length ? ldl_le_p(header + 32) : 2048;
    length = length ?: 2000;
    if (ldl_le_p(header) != 1 || ldl_le_p(header + 20) != 1 || total > INTEL_LONGEST || length > INTEL_LONGEST || length % 4
        || total < INTEL_HEADER + length) {
        return "header";
    }
    update = g_malloc(total);
    if (!read_guest(cpu, data - INTEL_HEADER, update, total)) {
        return "header";
    }
    if (sum(update, INTEL_HEADER + length)) {
        return "checksum";
    }
    table = update + INTEL_HEADER + length;
    total -= INTEL_HEADER + length;
    if (total >= INTEL_TABLE_HEADER) {
        count = ldl_le_p(table);
        if (count > (total - INTEL_TABLE_HEADER) / INTEL_TABLE_ENTRY) {
            return "header";
        }
        if (sum(table, INTEL_TABLE_HEADER + count * INTEL_TABLE_ENTRY)) {
            return "checksum";
        }
    }
    for (uint32_t i = 0; i <= count; i++) {
        const uint8_t *entry = table + INTEL_TABLE_HEADER + (i - 1) * INTEL_TABLE_ENTRY;
        uint32_t signature = ldl_le_p(i ? entry : update + 12);
        uint32_t platforms = ldl_le_p(i ? entry + 4 : update + 24);
        if (signature == mine) {
            known = true;
            if (!platforms || platforms & bit) {
                return NULL;
            }
        }
    }
    return known ? "platform" : "signature";
}

static const char *check_amd(X86CPU *cpu, uint64_t address, int64_t *offered)
{
    uint32_t mine = cpu->env.cpuid_version;
    uint8_t header[AMD_HEADER];

    if (!read_guest(cpu, address, header, AMD_HEADER)) {
        return "header";
    }
    *offered = (int32_t)ldl_le_p(header + 4);
    if (lduw_le_p(header + 24) != ((mine >> 8 & 0xf000) | (mine >> 8 & 0xf00) | (mine & 0xff))) {
        return "signature";
    }
    if (ldl_le_p(header + 16) || ldl_le_p(header + 20)) {
        return "platform";
    }
    return NULL;
}

/* Updates */

static bool takes(X86CPU *cpu, int64_t revision)
{
    int place = CPU(cpu)->cpu_index;
    uint64_t mask = cpu->microcode.cpus;

    return revision != cpu->microcode.refused && (place < 64 ? mask >> place & 1 : mask == UINT64_MAX);
}

static bool same_core(X86CPU *one, X86CPU *other)
{
    unsigned bits = apicid_bitwidth_for_count(CPU(one)->nr_threads);

    return one->apic_id >> bits == other->apic_id >> bits;
}

static G_NORETURN void stop(X86CPU *cpu)
{
    CPUState *cs = CPU(cpu);

    qatomic_set(&cpu->microcode.stopped, true);
    cs->halted = 1;
    cs->exception_index = EXCP_HLT;
    cpu_loop_exit(cs);
}

static void go_on(CPUState *cs, run_on_cpu_data unused)
{
    Microcode *m = &X86_CPU(cs)->microcode;

    if (m->stopped && !m->hung) {
        m->stopped = false;
        cs->halted = 0;
    }
}

static void time_over(void *cs)
{
    async_run_on_cpu(cs, go_on, RUN_ON_CPU_NULL);
}

static void update(X86CPU *cpu, uint64_t address)
{
    Microcode *m = &cpu->microcode;
    int64_t offered = NO_REVISION;
    const char *result = IS_AMD_CPU(&cpu->env) ? check_amd(cpu, address, &offered) : check_intel(cpu, address, &offered);
    char to[16] = "null";
    bool taken, hang;
    int32_t from;
    CPUState *cs;

    if (offered != NO_REVISION) {
        snprintf(to, sizeof(to), "\"0x%08x\"", (int32_t)offered);
    }
    if (!result && !takes(cpu, offered)) {
        result = "refused";
    }
    taken = !result;
    hang = taken && offered == m->hang_at;
    if (taken && !hang && m->time && !m->waited) {
        m->waited = true;
        timer_mod(m->timer, qemu_clock_get_us(QEMU_CLOCK_VIRTUAL) + m->time);
        stop(cpu); /* the instruction is executed again when the time is over */
    }
    m->waited = false;
    qemu_mutex_lock(&lock);
    from = m->revision;
    if (taken) {
        qatomic_set(&m->revision, offered);
        follow_revision(CPU(cpu), RUN_ON_CPU_NULL);
        result = hang ? "hang" : "taken";
    }
    log_event(cpu, "\"update\", \"result\": \"%s\", \"from\": \"0x%08x\", \"to\": %s", result, from, to);
    CPU_FOREACH(cs) {
        X86CPU *other = X86_CPU(cs);
        if (taken && other != cpu && same_core(cpu, other) && takes(other, offered)) {
            qatomic_set(&other->microcode.revision, offered);
            if (hang) {
                other->microcode.hung = true;
                qatomic_set(&other->microcode.stopped, true);
            }
            async_run_on_cpu(cs, follow_revision, RUN_ON_CPU_NULL);
            log_event(other, "\"sibling\"");
        }
    }
    qemu_mutex_unlock(&lock);
    if (hang) {
        m->hung = true;
        stop(cpu);
    }
}

/* What the rest of QEMU calls */

void microcode_wrmsr(CPUX86State *env, uint64_t value)
{
    uint32_t msr = env->regs[R_ECX];

    if ((msr == MSR_IA32_UCODE_WRITE && IS_INTEL_CPU(env)) || (msr == MSR_AMD64_PATCH_LOADER && IS_AMD_CPU(env))) {
        update(env_archcpu(env), value);
    } else if (msr == MSR_IA32_UCODE_REV) {
        env_archcpu(env)->microcode.sign_id = value;
    }
}

uint64_t microcode_rdmsr(CPUX86State *env)
{
    Microcode *m = &env_archcpu(env)->microcode;

    if ((uint32_t)env->regs[R_ECX] == MSR_IA32_PLATFORM_ID) {
        return IS_INTEL_CPU(env) ? (uint64_t)m->platform << 50 : 0;
    }
    return IS_AMD_CPU(env) ? (uint32_t)qatomic_read(&m->revision) : m->sign_id;
}

void microcode_init(X86CPU *cpu)
{
    cpu->microcode.waited = false;
    qemu_mutex_lock(&lock);
    log_event(cpu, "\"init\"");
    qemu_mutex_unlock(&lock);
}

static void forget(X86CPU *cpu)
{
    Microcode *m = &cpu->microcode;

    timer_del(m->timer);
    m->stopped = m->hung = m->waited = false;
    m->revision = IS_AMD_CPU(&cpu->env) ? cpu->ucode_rev : cpu->ucode_rev >> 32;
    m->sign_id = cpu->ucode_rev;
    follow_revision(CPU(cpu), RUN_ON_CPU_NULL);
}

void microcode_reset(X86CPU *cpu)
{
    forget(cpu);
    log_event(cpu, "\"reset\"");
}

void microcode_realize(X86CPU *cpu, Error **errp)
{
    Microcode *m = &cpu->microcode;

    m->log_fd = -1;
    if (m->platform > 7) {
        error_setg(errp, "ucode-platform=%u is no platform id: they go from 0 to 7", m->platform);
        return;
    }
    if (!parse_property("ucode-hang", m->hang, &m->hang_at, errp) || !parse_property("ucode-refuse", m->refuse, &m->refused, errp)
        || !parse_rules(m, "ucode-add", m->add, true, errp) || !parse_rules(m, "ucode-withdraw", m->withdraw, false, errp)) {
        return;
    }
    if (m->log) {
        m->log_fd = open(m->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (m->log_fd < 0) {
            error_setg_file_open(errp, errno, m->log);
            return;
        }
    }
    memcpy(m->features, cpu->env.features, sizeof(m->features));
    m->timer = timer_new_us(QEMU_CLOCK_VIRTUAL, time_over, cpu);
    forget(cpu);
}
