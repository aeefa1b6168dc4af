//! Formats of packed codes: what a word of codes looks like as words of bytes.

/// What a word holds. Kernels split its codes into [`Format::PARTS`] words of four bytes each, so that a
/// vector of words makes that many vectors of bytes without moving anything across lanes, and inputs are
/// laid out to match.
pub trait Format: Copy + 'static {
    /// Inputs of a group: four words.
    const GROUP: usize;
    /// Words of bytes that a word of codes is split into.
    const PARTS: usize;
    /// Steps of four inputs in a group, as the tile kernels take them.
    const STEPS: usize = Self::GROUP / 4;
    /// The code that stands for zero.
    const ZERO: i32;
    /// Codes of a word in the order of the parts' bytes: part `i / 4`, byte `i % 4`.
    const ORDER: &'static [usize];

    /// The parts of a word; those past [`Format::PARTS`] are zero.
    fn split(word: u32) -> [u32; 3];

    /// [`Format::split`] of 4 words.
    ///
    /// # Safety
    /// As for [`Quad`](super::simd::Quad).
    #[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
    unsafe fn split_quad<Q: super::simd::Quad>(words: Q::I) -> [Q::I; 3];

    /// [`Format::split`] of 8 words.
    ///
    /// # Safety
    /// The machine has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn split_avx2(words: std::arch::x86_64::__m256i) -> [std::arch::x86_64::__m256i; 3];

    /// [`Format::split`] of 16 words.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW and what `W` says.
    #[cfg(target_arch = "x86_64")]
    unsafe fn split_avx512<W: super::simd::Wide>(
        words: std::arch::x86_64::__m512i,
    ) -> [std::arch::x86_64::__m512i; 3];

    /// The steps of a group: part after part, one word a step; a third part has two codes a word, and
    /// two words of it fill a step.
    #[inline(always)]
    fn steps(words: [u32; 4]) -> [u32; 10] {
        let mut steps = [0; 10];
        for (s, word) in words.into_iter().enumerate() {
            let [a, b, c] = Self::split(word);
            (steps[s], steps[4 + s]) = (a, b);
            steps[8 + s / 2] |= c << (16 * (s % 2));
        }
        steps
    }

    /// A group's values in the order of the bytes of its steps, from the order of the inputs; the rest
    /// is zero.
    fn arrange<T: Copy + Default>(values: &[T; 48]) -> [T; 48];
}

/// Eight codes of 4 bits: code `i` at bits `4 i .. 4 i + 4`.
#[derive(Clone, Copy)]
pub struct Bits4;

/// Ten codes of 3 bits: code `i` at bits `3 i .. 3 i + 3`; bits 30 and 31 are unused.
#[derive(Clone, Copy)]
pub struct Bits3;

impl Format for Bits4 {
    const GROUP: usize = 32;
    const PARTS: usize = 2;
    const ZERO: i32 = 7;
    const ORDER: &'static [usize] = &[0, 2, 4, 6, 1, 3, 5, 7];

    #[inline(always)]
    fn arrange<T: Copy + Default>(values: &[T; 48]) -> [T; 48] {
        // Even inputs, then odd ones.
        let mut out = [T::default(); 48];
        for j in 0..16 {
            (out[j], out[16 + j]) = (values[2 * j], values[2 * j + 1]);
        }
        out
    }

    #[inline(always)]
    fn split(word: u32) -> [u32; 3] {
        [word & 0x0f0f_0f0f, (word >> 4) & 0x0f0f_0f0f, 0]
    }

    #[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
    #[inline(always)]
    unsafe fn split_quad<Q: super::simd::Quad>(words: Q::I) -> [Q::I; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let low = Q::splat(0x0f0f_0f0f);
            [Q::and(words, low), Q::and(Q::shr::<4>(words), low), Q::splat(0)]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn split_avx2(words: std::arch::x86_64::__m256i) -> [std::arch::x86_64::__m256i; 3] {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm256_set1_epi8(15);
            let odd = _mm256_and_si256(_mm256_srli_epi16::<4>(words), low);
            [_mm256_and_si256(words, low), odd, _mm256_setzero_si256()]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn split_avx512<W: super::simd::Wide>(
        words: std::arch::x86_64::__m512i,
    ) -> [std::arch::x86_64::__m512i; 3] {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm512_set1_epi8(15);
            let odd = _mm512_and_si512(_mm512_srli_epi16::<4>(words), low);
            [_mm512_and_si512(words, low), odd, _mm512_setzero_si512()]
        }
    }
}

/// The first eight codes of [`Bits3::ORDER`] lie in pairs that begin at bits 0, 9, 18 and 24: one pair in
/// each byte after shifts by 0, 1, 2 and 0.
impl Format for Bits3 {
    const GROUP: usize = 40;
    const PARTS: usize = 3;
    const ZERO: i32 = 3;
    const ORDER: &'static [usize] = &[0, 3, 6, 8, 1, 4, 7, 9, 2, 5];

    #[inline(always)]
    fn arrange<T: Copy + Default>(values: &[T; 48]) -> [T; 48] {
        let mut out = [T::default(); 48];
        for word in 0..4 {
            for (i, code) in Self::ORDER.iter().enumerate() {
                let at = if i < 8 { (i / 4) * 16 + word * 4 + i % 4 } else { 32 + word * 2 + i % 2 };
                out[at] = values[word * 10 + code];
            }
        }
        out
    }

    #[inline(always)]
    fn split(w: u32) -> [u32; 3] {
        let pairs = (w & 0x3f00_003f) | ((w >> 1) & 0x3f00) | ((w >> 2) & 0x003f_0000);
        let rest = ((w >> 6) & 7) | ((w >> 7) & 0x700);
        [pairs & 0x0707_0707, (pairs >> 3) & 0x0707_0707, rest]
    }

    #[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
    #[inline(always)]
    unsafe fn split_quad<Q: super::simd::Quad>(w: Q::I) -> [Q::I; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let pairs = Q::or(
                Q::or(Q::and(w, Q::splat(0x3f00_003f)), Q::and(Q::shr::<1>(w), Q::splat(0x3f00))),
                Q::and(Q::shr::<2>(w), Q::splat(0x003f_0000)),
            );
            let seven = Q::splat(0x0707_0707);
            let rest = Q::or(Q::and(Q::shr::<6>(w), Q::splat(7)), Q::and(Q::shr::<7>(w), Q::splat(0x700)));
            [Q::and(pairs, seven), Q::and(Q::shr::<3>(pairs), seven), rest]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn split_avx2(w: std::arch::x86_64::__m256i) -> [std::arch::x86_64::__m256i; 3] {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        unsafe {
            let and = |v, mask: i32| _mm256_and_si256(v, _mm256_set1_epi32(mask));
            let pairs = _mm256_or_si256(
                _mm256_or_si256(and(w, 0x3f00_003f), and(_mm256_srli_epi32::<1>(w), 0x3f00)),
                and(_mm256_srli_epi32::<2>(w), 0x003f_0000),
            );
            [
                and(pairs, 0x0707_0707),
                and(_mm256_srli_epi32::<3>(pairs), 0x0707_0707),
                _mm256_or_si256(and(_mm256_srli_epi32::<6>(w), 7), and(_mm256_srli_epi32::<7>(w), 0x700)),
            ]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn split_avx512<W: super::simd::Wide>(
        w: std::arch::x86_64::__m512i,
    ) -> [std::arch::x86_64::__m512i; 3] {
        use std::arch::x86_64::*;
        // SAFETY: the caller's promise.
        unsafe {
            if W::VBMI {
                // Bits at which the codes of each part begin; bytes that stand for no code are masked out.
                return [
                    super::simd::fields(w, 0x1812_0900, 0x0707_0707),
                    super::simd::fields(w, 0x1b15_0c03, 0x0707_0707),
                    super::simd::fields(w, 0x0000_0f06, 0x0000_0707),
                ];
            }
            // 0xca: bits of the second where the first has ones, else of the third.
            let select = |mask: i32, a, b| _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(mask), a, b);
            let seven = _mm512_set1_epi32(0x0707_0707);
            let pairs = select(0x3f00, _mm512_srli_epi32::<1>(w), w);
            let pairs = select(0x003f_0000, _mm512_srli_epi32::<2>(w), pairs);
            let rest = select(7, _mm512_srli_epi32::<6>(w), _mm512_srli_epi32::<7>(w));
            [
                _mm512_and_si512(pairs, seven),
                _mm512_and_si512(_mm512_srli_epi32::<3>(pairs), seven),
                _mm512_and_si512(rest, _mm512_set1_epi32(0x707)),
            ]
        }
    }
}
