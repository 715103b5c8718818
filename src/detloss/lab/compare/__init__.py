"""Which loss? One detector for each loss, all else equal: `detloss compare`."""
