/*
 * Microcode that a processor under TCG takes: see README.md beside the source.
 *
 * Copyright: the fleet.microcode authors
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef I386_MICROCODE_H
#define I386_MICROCODE_H

#define MICROCODE_RULES 8 /* one bit each of the eight that tell translated code of different processors apart */

typedef struct MicrocodeRule {
    bool add;
    int32_t revision;
    uint32_t leaf, subleaf, mask;
    int reg;
    FeatureWord word; /* FEATURE_WORDS: nothing that decides over instructions */
} MicrocodeRule;

typedef struct Microcode {
    /* properties as given */
    uint8_t platform;
    uint64_t cpus, time;
    char *log, *hang, *refuse, *add, *withdraw;
    /* what they mean */
    int log_fd;
    int64_t hang_at, refused; /* NO_REVISION: none */
    MicrocodeRule rules[MICROCODE_RULES];
    int rules_count;
    /* state */
    int32_t revision;
    uint64_t sign_id; /* what MSR 0x8b answers on Intel */
    FeatureWordArray features; /* where no rule holds */
    QEMUTimer *timer;
    bool stopped; /* busy with an update, or hung: no interrupt makes it run */
    bool hung;    /* until a reset */
    bool waited;  /* ucode-time is over for the update that is written now */
} Microcode;

#define MICROCODE_PROPERTIES(state) \
    DEFINE_PROP_UINT8("ucode-platform", X86CPU, state.platform, 0), \
    DEFINE_PROP_UINT64("ucode-cpus", X86CPU, state.cpus, UINT64_MAX), \
    DEFINE_PROP_UINT64("ucode-time", X86CPU, state.time, 0), \
    DEFINE_PROP_STRING("ucode-log", X86CPU, state.log), \
    DEFINE_PROP_STRING("ucode-hang", X86CPU, state.hang), \
    DEFINE_PROP_STRING("ucode-refuse", X86CPU, state.refuse), \
    DEFINE_PROP_STRING("ucode-add", X86CPU, state.add), \
    DEFINE_PROP_STRING("ucode-withdraw", X86CPU, state.withdraw)

#define MSR_IA32_PLATFORM_ID 0x17
#define MSR_IA32_UCODE_WRITE 0x79
#define MSR_AMD64_PATCH_LOADER 0xc0010020

void microcode_realize(X86CPU *cpu, Error **errp);
void microcode_reset(X86CPU *cpu);
void microcode_init(X86CPU *cpu);
void microcode_wrmsr(CPUX86State *env, uint64_t value);
uint64_t microcode_rdmsr(CPUX86State *env);
void microcode_cpuid(CPUX86State *env, uint32_t leaf, uint32_t subleaf);

#endif
