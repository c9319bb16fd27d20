/* Vector kernels by intrinsics, each once with SSE2, which every x86-64 has, and once with AVX2 and
   FMA. The arrays fit into a level 1 cache: it is
   not memory that is measured. */

#include "bench.h"
#include <immintrin.h>
#include <string.h>

enum { N = 2048, BYTES = 8192, ROUNDS = 400 };

static float a[N], b[N], c[N];
static uint8_t bytes[BYTES], more[BYTES];

static void fill(void)
{
    uint64_t state = 17;
    for (int i = 0; i < N; i++) {
        /* Small integers: sums are exact, in whatever order, fused or not. */
        a[i] = random32(&state) & 15;
        b[i] = random32(&state) & 15;
        c[i] = 0;
    }
    for (int i = 0; i < BYTES; i++) {
        bytes[i] = random32(&state);
        more[i] = random32(&state);
    }
}

static uint64_t sum_floats(const float *floats)
{
    uint64_t sum = 0;
    for (int i = 0; i < N; i++)
        sum = fold_double(sum, floats[i]);
    return sum;
}

static uint64_t sum_bytes(const uint8_t *it)
{
    uint64_t sum = 0, word;
    for (int i = 0; i < BYTES; i += 8) {
        memcpy(&word, it + i, 8);
        sum = fold(sum, word);
    }
    return sum;
}

#define SSE __attribute__((noinline))
#define AVX2 __attribute__((target("avx2,fma"), noinline))

SSE static uint64_t saxpy_sse2(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        __m128 factor = _mm_set1_ps(round & 3);
        for (int i = 0; i < N; i += 4)
            _mm_storeu_ps(c + i, _mm_add_ps(_mm_mul_ps(factor, _mm_loadu_ps(a + i)),
                                            _mm_loadu_ps(b + i)));
        __asm__ volatile("" : : : "memory");
    }
    return sum_floats(c);
}

AVX2 static uint64_t saxpy_avx2(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        __m256 factor = _mm256_set1_ps(round & 3);
        for (int i = 0; i < N; i += 8)
            _mm256_storeu_ps(c + i, _mm256_fmadd_ps(factor, _mm256_loadu_ps(a + i),
                                                    _mm256_loadu_ps(b + i)));
        __asm__ volatile("" : : : "memory");
    }
    return sum_floats(c);
}

SSE static uint64_t dot_sse2(void)
{
    float lanes[4], sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        __m128 s0 = _mm_setzero_ps(), s1 = s0;
        for (int i = 0; i < N; i += 8) {
            s0 = _mm_add_ps(s0, _mm_mul_ps(_mm_loadu_ps(a + i), _mm_loadu_ps(b + i)));
            s1 = _mm_add_ps(s1, _mm_mul_ps(_mm_loadu_ps(a + i + 4), _mm_loadu_ps(b + i + 4)));
        }
        _mm_storeu_ps(lanes, _mm_add_ps(s0, s1));
        sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
        __asm__ volatile("" : "+x"(sum) : : "memory");
    }
    return sum;
}

AVX2 static uint64_t dot_avx2(void)
{
    float lanes[8], sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        __m256 s0 = _mm256_setzero_ps(), s1 = s0;
        for (int i = 0; i < N; i += 16) {
            s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
            s1 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), s1);
        }
        _mm256_storeu_ps(lanes, _mm256_add_ps(s0, s1));
        sum = 0;
        for (int i = 0; i < 8; i++)
            sum += lanes[i];
        __asm__ volatile("" : "+x"(sum) : : "memory");
    }
    return sum;
}

/* Sums of 32-bit integers and of absolute differences of bytes. */
SSE static uint64_t integers_sse2(void)
{
    uint64_t lanes[2], sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        __m128i words = _mm_setzero_si128(), differences = words;
        for (int i = 0; i < BYTES; i += 16) {
            __m128i x = _mm_loadu_si128((void *)(bytes + i)), y = _mm_loadu_si128((void *)(more + i));
            words = _mm_add_epi32(words, _mm_xor_si128(_mm_slli_epi32(x, 3), y));
            differences = _mm_add_epi64(differences, _mm_sad_epu8(x, y));
        }
        _mm_storeu_si128((void *)lanes, _mm_add_epi64(words, differences));
        sum += lanes[0] + lanes[1];
        __asm__ volatile("" : : : "memory");
    }
    return sum;
}

AVX2 static uint64_t integers_avx2(void)
{
    uint64_t lanes[4], sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        __m256i words = _mm256_setzero_si256(), differences = words;
        for (int i = 0; i < BYTES; i += 32) {
            __m256i x = _mm256_loadu_si256((void *)(bytes + i));
            __m256i y = _mm256_loadu_si256((void *)(more + i));
            words = _mm256_add_epi32(words, _mm256_xor_si256(_mm256_slli_epi32(x, 3), y));
            differences = _mm256_add_epi64(differences, _mm256_sad_epu8(x, y));
        }
        _mm256_storeu_si256((void *)lanes, _mm256_add_epi64(words, differences));
        sum += lanes[0] + lanes[1] + lanes[2] + lanes[3];
        __asm__ volatile("" : : : "memory");
    }
    return sum;
}

/* Turns groups of four words or bytes around and interleaves. */
SSE static uint64_t shuffle_sse2(void)
{
    static uint8_t out[BYTES];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BYTES; i += 16) {
            __m128i x = _mm_shufflelo_epi16(_mm_loadu_si128((void *)(bytes + i)), 0x1b);
            __m128i y = _mm_shuffle_epi32(_mm_loadu_si128((void *)(more + i)), 0x1b);
            _mm_storeu_si128((void *)(out + i), _mm_packus_epi16(_mm_unpacklo_epi8(x, y),
                                                                _mm_srli_epi16(y, 8)));
        }
        __asm__ volatile("" : : : "memory");
    }
    return sum_bytes(out);
}

AVX2 static uint64_t shuffle_avx2(void)
{
    static uint8_t out[BYTES];
    const __m256i turn = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12));
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BYTES; i += 32) {
            __m256i x = _mm256_shuffle_epi8(_mm256_loadu_si256((void *)(bytes + i)), turn);
            __m256i y = _mm256_permute4x64_epi64(_mm256_loadu_si256((void *)(more + i)), 0x1b);
            _mm256_storeu_si256((void *)(out + i), _mm256_packus_epi16(_mm256_unpacklo_epi8(x, y),
                                                                      _mm256_srli_epi16(y, 8)));
        }
        __asm__ volatile("" : : : "memory");
    }
    return sum_bytes(out);
}

/* Where a byte stands that is in the last sixteenth only. */
SSE static uint64_t search_sse2(void)
{
    static uint8_t text[BYTES];
    uint64_t sum = 0;
    for (int i = 0; i < BYTES; i++)
        text[i] = bytes[i] & 0x7f;
    for (int round = 0; round < ROUNDS; round++) {
        int at = BYTES - 1 - round % 512;
        text[at] = 0xff;
        __m128i wanted = _mm_set1_epi8(-1);
        for (int i = 0; i < BYTES; i += 16) {
            int mask = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((void *)(text + i)), wanted));
            if (mask) {
                sum = fold(sum, i + __builtin_ctz(mask));
                break;
            }
        }
        text[at] = 0;
    }
    return sum;
}

AVX2 static uint64_t search_avx2(void)
{
    static uint8_t text[BYTES];
    uint64_t sum = 0;
    for (int i = 0; i < BYTES; i++)
        text[i] = bytes[i] & 0x7f;
    for (int round = 0; round < ROUNDS; round++) {
        int at = BYTES - 1 - round % 512;
        text[at] = 0xff;
        __m256i wanted = _mm256_set1_epi8(-1);
        for (int i = 0; i < BYTES; i += 32) {
            unsigned mask = _mm256_movemask_epi8(
                _mm256_cmpeq_epi8(_mm256_loadu_si256((void *)(text + i)), wanted));
            if (mask) {
                sum = fold(sum, i + __builtin_ctz(mask));
                break;
            }
        }
        text[at] = 0;
    }
    return sum;
}

/* The greater of two words, or half of it: compare, and, and-not, or; blends with AVX2. */
SSE static uint64_t blend_sse2(void)
{
    static uint8_t out[BYTES];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BYTES; i += 16) {
            __m128i x = _mm_loadu_si128((void *)(bytes + i)), y = _mm_loadu_si128((void *)(more + i));
            __m128i mask = _mm_cmpgt_epi16(x, y);
            _mm_storeu_si128((void *)(out + i), _mm_or_si128(_mm_and_si128(mask, x),
                             _mm_andnot_si128(mask, _mm_srai_epi16(y, 1))));
        }
        __asm__ volatile("" : : : "memory");
    }
    return sum_bytes(out);
}

AVX2 static uint64_t blend_avx2(void)
{
    static uint8_t out[BYTES];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BYTES; i += 32) {
            __m256i x = _mm256_loadu_si256((void *)(bytes + i));
            __m256i y = _mm256_loadu_si256((void *)(more + i));
            _mm256_storeu_si256((void *)(out + i), _mm256_blendv_epi8(_mm256_srai_epi16(y, 1), x,
                                                                     _mm256_cmpgt_epi16(x, y)));
        }
        __asm__ volatile("" : : : "memory");
    }
    return sum_bytes(out);
}

/* Double precision: products of 4×4 matrices. */
static double left[64][16], right[64][16], product[64][16];

static void matrices(void)
{
    uint64_t state = 19;
    for (int n = 0; n < 64; n++)
        for (int i = 0; i < 16; i++) {
            left[n][i] = random32(&state) & 255;
            right[n][i] = random32(&state) & 255;
        }
}

static uint64_t sum_products(void)
{
    uint64_t sum = 0;
    for (int n = 0; n < 64; n++)
        for (int i = 0; i < 16; i++)
            sum = fold_double(sum, product[n][i]);
    return sum;
}

SSE static uint64_t matrix_sse2(void)
{
    for (int round = 0; round < ROUNDS / 2; round++) {
        for (int n = 0; n < 64; n++)
            for (int row = 0; row < 16; row += 4) {
                __m128d low = _mm_setzero_pd(), high = low;
                for (int k = 0; k < 4; k++) {
                    __m128d factor = _mm_set1_pd(left[n][row + k]);
                    low = _mm_add_pd(low, _mm_mul_pd(factor, _mm_loadu_pd(&right[n][4 * k])));
                    high = _mm_add_pd(high, _mm_mul_pd(factor, _mm_loadu_pd(&right[n][4 * k + 2])));
                }
                _mm_storeu_pd(&product[n][row], low);
                _mm_storeu_pd(&product[n][row + 2], high);
            }
        __asm__ volatile("" : : : "memory");
    }
    return sum_products();
}

AVX2 static uint64_t matrix_avx2(void)
{
    for (int round = 0; round < ROUNDS / 2; round++) {
        for (int n = 0; n < 64; n++)
            for (int row = 0; row < 16; row += 4) {
                __m256d sum = _mm256_setzero_pd();
                for (int k = 0; k < 4; k++)
                    sum = _mm256_fmadd_pd(_mm256_broadcast_sd(&left[n][row + k]),
                                          _mm256_loadu_pd(&right[n][4 * k]), sum);
                _mm256_storeu_pd(&product[n][row], sum);
            }
        __asm__ volatile("" : : : "memory");
    }
    return sum_products();
}

const struct program vector_programs[] = {
    { "saxpy-sse2", saxpy_sse2, 300, fill },
    { "saxpy-avx2", saxpy_avx2, 300, fill, 1 },
    { "dot-sse2", dot_sse2, 300, fill },
    { "dot-avx2", dot_avx2, 300, fill, 1 },
    { "integers-sse2", integers_sse2, 300, fill },
    { "integers-avx2", integers_avx2, 300, fill, 1 },
    { "shuffle-sse2", shuffle_sse2, 300, fill },
    { "shuffle-avx2", shuffle_avx2, 300, fill, 1 },
    { "search-sse2", search_sse2, 300, fill },
    { "search-avx2", search_avx2, 300, fill, 1 },
    { "blend-sse2", blend_sse2, 300, fill },
    { "blend-avx2", blend_avx2, 300, fill, 1 },
    { "matrix-sse2", matrix_sse2, 300, matrices },
    { "matrix-avx2", matrix_avx2, 300, matrices, 1 },
    { 0 },
};
