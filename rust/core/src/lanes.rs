//! Elementary functions of many numbers at once, without branches, so that the compiler puts four numbers in a register.

const LN_2_LOW: f64 = 2.319_046_813_846_299_6e-17;
/// 1.5 * 2^52: adding it leaves the nearest whole number in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// Where exp underflows to subnormal numbers, and where it overflows.
const LOWEST: f64 = -708.0;
const HIGHEST: f64 = 710.0;

/// exp(x) to a few ulps (see the test); not less than exp(-708).
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    let t = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let n = t - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-std::f64::consts::LN_2, x));
    // 1 + r + r^2 / 2 + ..., |r| <= log(2) / 2: the next term is below 1e-17.
    let mut p = 1.0 / 6_227_020_800.0;
    for c in
        [479_001_600.0, 39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0]
    {
        p = r.mul_add(p, 1.0 / c);
    }
    p * f64::from_bits((t.to_bits() << 52).wrapping_add(1023 << 52))
}

/// log(1 + x) for x in [0, 1].
#[inline(always)]
pub fn ln_1p_unit(x: f64) -> f64 {
    let far = x > std::f64::consts::SQRT_2 - 1.0;
    let f = if far { 0.5 * (x - 1.0) } else { x };
    // 2 atanh(s), |s| <= .172: the next term is below 1e-18.
    let s = f / (2.0 + f);
    let z = s * s;
    let mut p = 1.0 / 23.0;
    for c in [21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        p = z.mul_add(p, 1.0 / c);
    }
    (2.0 * s).mul_add(p, if far { std::f64::consts::LN_2 } else { 0.0 })
}

#[cfg(test)]
mod tests {
    /// To a few ulps of the library's, which are good to one.
    #[test]
    fn agree_with_the_library() {
        for i in -70_000..=70_900 {
            let x = f64::from(i) * 0.01 + 0.003;
            let (a, b) = (super::exp(x), x.exp());
            assert!((a - b).abs() <= 4.0 * f64::EPSILON * b, "exp({x}): {a} {b}");
        }
        for i in 0..=100_000 {
            let x = (f64::from(i) * 1e-5).powi(1 + i % 7);
            let (a, b) = (super::ln_1p_unit(x), x.ln_1p());
            assert!((a - b).abs() <= 4.0 * f64::EPSILON * b, "ln_1p({x}): {a} {b}");
        }
        assert_eq!((super::exp(0.0), super::ln_1p_unit(0.0)), (1.0, 0.0));
        assert!(super::exp(f64::NAN).is_nan() && super::exp(f64::INFINITY).is_infinite());
        assert!(super::exp(f64::NEG_INFINITY) < 1e-300);
    }
}
