#!/bin/sh
# Prints the flags for a compiler that must leave AMX alone. GCC before 11.5, 12.4, 13.3 and 14 stores only a part of a tile
# configuration (GCC bug 114098), so what it makes of llama.cpp ends with an illegal instruction where the processor has AMX.
"${CC:-cc}" -march=native -dM -E -x c /dev/null 2>/dev/null | awk '
    $2 == "__AMX_TILE__" { amx = 1 }
    $2 == "__clang__" { sound = 1 }
    $2 == "__GNUC__" { major = $3 }
    $2 == "__GNUC_MINOR__" { minor = $3 }
    END {
        if (major >= 14 || (major == 13 && minor >= 3) || (major == 12 && minor >= 4) || (major == 11 && minor >= 5)) sound = 1
        if (amx && !sound) print "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    }'
