//! Medians and quartiles.
//! It must never throw a measurement away: a benchmark that drops its outliers is no benchmark.

/// The middle of some values and the quarter on either side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quartiles {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

/// The quartiles of `values`, between neighbours by linear interpolation; none of no values.
pub(crate) fn quartiles(values: &[f64]) -> Option<Quartiles> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |quarter: usize| {
        // In quarters of a step, so that the index stays a whole number.
        let position = quarter * (sorted.len().checked_sub(1)?);
        let (low, high) = (*sorted.get(position / 4)?, *sorted.get(position.div_ceil(4))?);
        let weight = [0.0, 0.25, 0.5, 0.75][position % 4];
        Some((high - low).mul_add(weight, low))
    };
    Some(Quartiles { low: at(1)?, median: at(2)?, high: at(3)? })
}

/// The median of `values`.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    quartiles(values).map(|quartiles| quartiles.median)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quartiles_of_known_values() {
        for (values, expected) in [
            (&[3.0][..], [3.0, 3.0, 3.0]),
            (&[2.0, 1.0], [1.25, 1.5, 1.75]),
            (&[5.0, 1.0, 3.0], [2.0, 3.0, 4.0]),
            (&[4.0, 1.0, 3.0, 2.0], [1.75, 2.5, 3.25]),
            (&[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [3.0, 5.0, 7.0]),
            // One round that went wrong moves neither the median nor a quartile.
            (&[1.0, 1.0, 1.0, 1.0, 1000.0], [1.0, 1.0, 1.0]),
        ] {
            let [low, median, high] = expected;
            assert_eq!(quartiles(values), Some(Quartiles { low, median, high }), "{values:?}");
        }
        assert_eq!(quartiles(&[]), None);
    }

    proptest! {
        #[test]
        fn half_lies_on_either_side_whatever_the_order(mut values in prop::collection::vec(0.001..1e6_f64, 1..40)) {
            let found = quartiles(&values).unwrap();
            prop_assert!(found.low <= found.median && found.median <= found.high);
            let below = values.iter().filter(|value| **value < found.median).count();
            let above = values.iter().filter(|value| **value > found.median).count();
            prop_assert!(below * 2 <= values.len() && above * 2 <= values.len());
            values.reverse();
            prop_assert_eq!(quartiles(&values), Some(found));
        }
    }
}
