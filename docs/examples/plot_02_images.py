"""
Images: a small network taught by a larger one
==============================================

The student is the first blocks of EfficientNet-Lite0, fine-tuned on images of 32 x 32 pixels. Its
teacher is the whole EfficientNet-Lite0, which reads images at 128 x 128 pixels.
"""

# %%
# Images
# ------
# Fashion-MNIST contains images of clothes in ten classes. We keep ten labels per class, and 300
# images without a label.

import matplotlib.pyplot as plt
import numpy as np

from sk_aft.datasets import load_fashion_mnist

images, classes = load_fashion_mnist(labels_per_class=40, return_X_y=True)
test_images, test_classes = load_fashion_mnist(subset="test", return_X_y=True)

labels = classes.astype(object)
for name in np.unique(classes):
    labels[np.flatnonzero(classes == name)[10:]] = "?"

_, axes = plt.subplots(2, 5, figsize=(7, 3.2), layout="constrained")
for ax, name in zip(axes.flat, np.unique(classes), strict=True):
    ax.imshow(images[classes == name][0], cmap="gray_r")
    ax.set(title=name, xticks=[], yticks=[])

# %%
# Train
# -----
# We use images of 32 x 32 pixels, to be quick. The default is 64 x 64.

from sklearn.pipeline import make_pipeline

from sk_aft import AFTClassifier, FoundationFeatureExtractor

student = AFTClassifier(missing_label="?", module__image_size=32, random_state=0)
pipe = make_pipeline(FoundationFeatureExtractor("effnet-lite0"), student)
pipe.fit(images, labels)
print(f"taught: {pipe[-1].score(test_images, test_classes):.3f}")

# %%
# The same network without a teacher:

is_known = labels != "?"
alone = AFTClassifier(beta=0, module__image_size=32, random_state=0)
alone.fit(images[is_known], labels[is_known])
print(f"alone:  {alone.score(test_images, test_classes):.3f}")

# %%
# Deploy
# ------
# Image networks are exported for ONNX Runtime. The graph resizes and normalises the images.

import tempfile

from sk_aft.serving import load

folder = tempfile.mkdtemp()
pipe[-1].save_pretrained(folder, onnx=True)
print(load(folder).predict(test_images[:3]), test_classes[:3])
