import numpy as np
import pytest
from PIL import Image

from detloss.lab.data.images import image_size, read_image


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_reads_pixels(picture, suffix, tmp_path):
    Image.fromarray(picture).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), picture)
    assert image_size(tmp_path / f"a.{suffix}") == (8, 12)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_other_modes_become_rgb(picture, mode, tmp_path):
    image = Image.fromarray(picture).convert(mode)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(file)
    np.testing.assert_array_equal(read_image(file), np.asarray(image.convert("RGB")))


def test_palette_with_transparency(picture, tmp_path):
    image = Image.fromarray(picture).convert("P")
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert read_image(tmp_path / "a.png").shape == (8, 12, 3)  # Pillow warns here without care


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_image_and_size(picture, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    turned = read_image(tmp_path / "a.png")
    assert turned.shape[:2] == image_size(tmp_path / "a.png") == ((8, 12) if orientation < 5 else (12, 8))
    if orientation == 3:  # half a turn
        np.testing.assert_array_equal(turned, picture[::-1, ::-1])
    if orientation == 6:  # shown after a quarter turn clockwise
        np.testing.assert_array_equal(turned, np.rot90(picture, -1))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6])
def test_truncated_files_are_named(suffix, keep, tmp_path):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match=rf"a\.{suffix}: the image cannot be decoded") as caught:
        read_image(file)
    assert "\n" not in str(caught.value)


def test_missing_and_deep_images(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png: no such image"):
        read_image(tmp_path / "a.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: pixels are of mode I;16, deeper than 8 bits"):
        read_image(tmp_path / "a.png")
