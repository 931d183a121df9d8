//! The rows of a generalised model, and passes over them: derivatives of the log density, scattered into the
//! cross-products that the mode needs. `plan` says where columns go, `panel` holds a cache-sized piece of them, `pass`
//! sums (`fixed` what concerns the fixed effects, by the `cells` of a factorial design; without random effects by `kinds`
//! of rows; `products` for any weights), `adjoint` goes the other way, `second` does what second
//! derivatives of the likelihood ask for, `levels` sums by group for quadrature, `still` finds what a step does not move.

mod adjoint;
mod cells;
mod fixed;
mod kinds;
mod levels;
mod panel;
mod pass;
mod plan;
mod products;
mod second;
mod still;

use crate::design::{Block, Rows, Term};
use crate::error::shape;
use crate::family::Data;
use crate::structure::Pattern;
use crate::CoreError;

pub use adjoint::{fixed_adjoint, random_adjoint, skewness, skewness_rows, squares_rows, Covariance, Restricted};
pub use kinds::Kinds;
pub use levels::{level_pass, level_sums, LevelSums};
pub use panel::{fixed_change, fixed_part, predictors, some_fixed_change, PANEL};
pub use pass::{pass, Sums, Want};
pub use plan::Plan;
pub use products::fixed_products;
pub use second::{add_products, levels_of, random_products, Derivatives};
pub use still::{longest, still};

/// A block of fixed columns and the index of its first coefficient; blocks with equal `first` share coefficients.
#[derive(Clone, Debug)]
pub struct Fixed<'a> {
    pub block: Block<'a>,
    pub first: usize,
}

/// One linear predictor.
#[derive(Clone, Debug)]
pub struct Component<'a> {
    pub fixed: Vec<Fixed<'a>>,
    pub offset: Option<&'a [f64]>,
}

impl Component<'_> {
    /// Whether another one has the same columns, of the caller's same arrays.
    fn same_columns(&self, other: &Self) -> bool {
        self.fixed.len() == other.fixed.len()
            && self.fixed.iter().zip(&other.fixed).all(|(a, b)| a.block.same(&b.block))
    }
}

/// Everything the core is told about the rows.
#[derive(Clone)]
pub struct GlmmRows<'a> {
    pub n: usize,
    pub components: Vec<Component<'a>>,
    pub p: usize,
    pub terms: Vec<Term<'a>>,
    /// Component that each block of each term belongs to.
    pub owner: Vec<Vec<usize>>,
    /// The covariance structure of terms that are `Structure::Patterned`.
    pub patterns: Vec<Option<Pattern>>,
    pub data: Data<'a>,
    pub weights: Option<&'a [f64]>,
}

impl<'a> GlmmRows<'a> {
    pub fn check(&self, k: usize) -> Result<(), CoreError> {
        if self.components.len() != k {
            return shape(format!("the family has {k} parameters, {} components were given", self.components.len()));
        }
        if self.owner.len() != self.terms.len() || self.owner.iter().flatten().any(|&c| c >= k) {
            return shape("every random term needs a component");
        }
        for (term, owner) in self.terms.iter().zip(&self.owner) {
            if owner.len() != term.blocks.len() {
                return shape("every block of a random term needs a component");
            }
            if !term.joint && owner.iter().any(|c| *c != owner[0]) {
                return shape("a random term of several components must be marked as joint");
            }
        }
        for c in &self.components {
            for f in &c.fixed {
                f.block.check(self.n, "fixed block")?;
                if f.first + f.block.cols > self.p {
                    return shape("a fixed block goes beyond the coefficients");
                }
            }
            if c.offset.is_some_and(|o| o.len() != self.n) {
                return shape("offset has the wrong length");
            }
            if let Some(i) = c.offset.and_then(|o| o.iter().position(|v| !v.is_finite())) {
                return Err(CoreError::NotFinite(format!("offset of row {i} is not finite")));
            }
        }
        self.pattern_rows().check()
    }

    /// The random terms as rows of a linear model without fixed effects: gives the pattern of Z'WZ.
    pub fn pattern_rows(&self) -> Rows<'a> {
        Rows {
            n: self.n,
            fixed: vec![],
            terms: self.terms.clone(),
            y: self.data.y,
            weights: self.weights,
            offset: None,
        }
    }
}
