"""The ``--help`` text of each command; ``{program}`` and ``{choices}`` are filled in."""

from __future__ import annotations

HELP = {
    "train": """\
Train a model. Every part is chosen by name, and every key can be set on the command line.

Examples:
  {program}                                       the default: a small HRNet on drawn images
  {program} loss=focal loss.gamma=3               another loss and its parameter
  {program} model=hrnet_w18 mining=ohem           another model; only the hard pixels count
  {program} dataset=folder dataset.root=DIR dataset.num_classes=2
  {program} dataset=camvid dataset.root=DIR experiment=camvid_cpu
  {program} -m loss=focal,dice seed=0,1,2         one run for each combination, then a comparison
  {program} -m loss=focal,dice seed=0,1 sweep_dir=DIR resume=auto   finish a sweep
  {program} run_dir=DIR resume=auto               resume a run
  {program} plugins=[my_losses.py] loss=mine      your own loss
  {program} loss=focal --cfg                      print the whole configuration and stop

Choices:
{choices}

All keys and their values: {program} --cfg
Results: outputs/<name>/<time>, or run_dir=DIR, with checkpoints, metrics.jsonl, results.json; with
-m outputs/sweeps/<name>/<time>, or sweep_dir=DIR, with a folder per run and comparison.html.
Exit codes: 0 done, 2 configuration, 3 data, 4 checkpoint, 5 numbers, 6 resources,
7 run directory in use, 130 or 143 stopped by a signal.""",
    "evaluate": """\
Score a checkpoint, on the dataset of its training or on another one.

Examples:
  {program} checkpoint=RUN_DIR
  {program} checkpoint=RUN_DIR split=train output=scores.json
  {program} checkpoint=RUN_DIR/checkpoints/last.pt dataset=camvid dataset.root=DIR
  {program} checkpoint=RUN_DIR evaluation=hrnet
  {program} checkpoint=RUN_DIR evaluation.window=[512,512] evaluation.flip=true
  {program} checkpoint=RUN_DIR thresholds=sweep
  {program} checkpoint=RUN_DIR dataset=voc2012 class_map.bus=car class_map.pole=null

Keys:
  checkpoint               a file, or a run directory (its checkpoints/best.pt)
  dataset, dataset.*       another dataset, or changed keys of the one of training
  class_map                the scored names of classes of the model and the dataset; null: pixels
                           of this class are ignored. The other classes keep their names. Without
                           it, both must have the same classes
  thresholds               for one logit and multi-label data: the probability above which a class
                           is predicted, a number or one per class; sweep: choose those of the
                           largest IoU on the val split, and store them in the checkpoint. Default:
                           those in the checkpoint, else 0.5
  split                    val (default), train or test
  evaluation               a preset: hrnet (six scales and flips) or default (one view)
  evaluation.window        [height,width] of sliding windows, multiples of 32; also
                           evaluation.stride and evaluation.blend (gaussian or uniform)
  evaluation.scales        sizes at which the model sees each image, such as [0.75,1,1.25]
  evaluation.flip          true: the model also sees each image flipped from left to right
  evaluation.batch_size    images per forward pass; default: as in training
  evaluation.size          [height,width] to which images are resized for the model; masks and
                           scores keep the original size
  evaluation.metrics       the metrics, such as [iou,dice,hd95]; default: as in training
  evaluation.classes       names of the classes that count in the mean of a metric
  list_images              the number of the worst and of the best images that are listed, by the
                           score trainer.best of the training; default: 5; 0: none
  loader.num_workers       processes that load images
  precision                fp32, bf16 or fp16; default: as in training
  device                   auto (default), cpu, cuda, cuda:1, ...
  output                   a JSON file for the scores; the counts of each image go beside it (.npz)
  plugins                  files that register the model or the dataset""",
    "compare": """\
Compare runs: which is better, by how much, and how sure that is. Runs that differ in nothing but
the seed form a group, and each group is compared with the baseline that agrees with it in all other
keys, paired by seed and image.

Examples:
  {program} outputs/sweeps/NAME/TIME
  {program} DIR metric=dice baseline=loss=dice output=FOLDER
  {program} RUN_DIR RUN_DIR RUN_DIR RUN_DIR

Keys:
  directories              run directories, sweep directories, or folders of them; without a key
  metric                   iou (default), another metric that the runs computed, or its value for a
                           class, as in iou[pole]
  baseline                 keys and values of the baseline, separated by commas; default:
                           loss=cross_entropy if there is such a group, else the first one
  output                   the folder to write to; default: the sweep, or a new folder in
                           outputs/comparisons
  plugins                  files that register the metric

It writes comparison.json, .md, .tex, .csv and .html. The interval covers 95 % and holds for
other seeds and other images like these.""",
    "predict": """\
Predict images, volumes and videos, at their original size.

Examples:
  {program} checkpoint=RUN_DIR input=FOLDER output=FOLDER
  {program} checkpoint=RUN_DIR 'input=FOLDER/**/*.tif' output=FOLDER outputs=[ids,geojson]
  {program} checkpoint=RUN_DIR input=clip.mp4 output=FOLDER outputs=[overlay]

Each output has a folder, in which the subfolders of the input are kept:
  ids                      class ids as grey PNG files, of 16 bits if there are more than 256 ids;
                           for multi-label data a folder per class
  color                    masks in the colours of the classes: palette PNG files, whose values are
                           the ids, or RGB files for more than 256 ids and multi-label data
  overlay                  the colours over the image; a video gives a video
  probabilities            a probability per class and pixel
  uncertainty              entropy/ and margin/, grey PNG files from 0 (certain) to 255
  labels                   the values of the training masks, by the inverse of dataset.label_map
  geojson                  a polygon per region
  coco                     coco.json, with a run-length mask per region of all images

An image with more pixels than dataset.max_pixels of the training is read and written in windows,
as TIFF files. GeoTIFF files give GeoTIFF files (pip install "segtrain[geo]").

An input that fails is reported, and the others are predicted. The exit code is then that of the
first failure: 3 data, 5 numbers, 6 resources.

Keys:
  checkpoint               a file, or a run directory (its checkpoints/best.pt)
  input                    an image, a NIfTI volume or a video (mp4, avi, mov, mkv), a folder with
                           its subfolders, a glob, or a .txt file with one path per line
  output                   the folder to write to
  outputs                  what is written; default: [ids,color,overlay]
  probabilities_format     float16 (default): .npy files (classes, height, width); uint8: TIFF files
                           with a band per class, 255 for 1
  min_area                 the smallest region in geojson and coco, in pixels; default: 1
  valid                    a folder or glob with a file for each image; where it is 0, the ids are
                           the ignore label, and nothing is drawn
  size                     [height,width] to which images are resized for the model; default: as
                           in training; windows of a larger image keep their resolution
  evaluation.window        [height,width] of overlapping windows, multiples of 32; default: the
                           whole image, and [1024,1024] for a large one; also stride and blend
  evaluation.scales        sizes at which the model sees an image, such as [0.75,1.0,1.25]
  evaluation.flip          true: the model also sees the image flipped
  evaluation               a preset of these: hrnet
  device                   auto (default), cpu, cuda, cuda:1, ...
  plugins                  files that register the model""",
    "export": """\
Export a trained model, and compare the file with the model on real images before it is kept.

Examples:
  {program} checkpoint=RUN_DIR output=model.onnx
  {program} checkpoint=RUN_DIR output=model.pt2 images=FOLDER
  {program} checkpoint=RUN_DIR output=model.xml argmax=false normalize=false
  {program} checkpoint=RUN_DIR output=model.onnx dynamic=false size=[512,1024]

The ending chooses the format: .onnx (ONNX Runtime), .pt2 (a program of torch.export) or .xml
(OpenVINO, with the weights in a .bin file). The model computes in float32. The file is run in its
runtime; a .pt2 file is run in a process of its own. If less than 99.99 % of the labels are those
of the model, nothing is written. model.onnx.json beside the file has the input, output, classes
and the agreement.

Keys:
  checkpoint               a file, or a run directory (its checkpoints/best.pt)
  output                   the file to write
  normalize                true (default): the input is pixels from 0 to 1; false: normalised ones
  upsample                 true (default): the output has the size of the input; false: the size at
                           which the model computes
  argmax                   true (default): class ids; false: logits
  images                   a folder or glob of images to compare on; default: the validation split
                           of the training
  num_images               how many of them are compared; default: 8
  opset                    the opset of ONNX; default: that of torch
  dynamic                  true (default): batch, height and width may vary; false: one image of
                           the given size
  size                     [height,width] to which images are resized for the model; default: as
                           in training
  plugins                  files that register the model""",
    "benchmark": """\
Time a trained model in torch and in each format of export, on the CPU.

Examples:
  {program} checkpoint=RUN_DIR
  {program} checkpoint=RUN_DIR formats=[torch,onnx] size=[512,1024] batch_sizes=[1,4] threads=2

It prints the median time of a call, the times that 10 and 90 % of the calls do not exceed, and
images per second. The formats take turns on the same images. Normalisation, upsampling and class
ids are included; reading images is not.

Keys:
  checkpoint               a file, or a run directory (its checkpoints/best.pt)
  formats                  of torch, onnx, pt2 and openvino; default: all whose packages are
                           installed
  size                     [height,width] of the images; default: as in training, or [512,512]
  batch_sizes              images per call; default: [1,4]
  repetitions              timed calls; default: 20
  threads                  threads of each runtime; default: that of torch
  plugins                  files that register the model""",
    "import": """\
Convert weights of other code into a checkpoint for evaluate, predict and model.weights.

Examples:
  {program} weights=best.pth model=hrnet_w48 model.align_corners=false output=imported.pt
  {program} weights=best.pth model=hrnet_w48_ocr model.align_corners=true \\
      dataset=camvid dataset.root=DIR output=imported.pt
  {program} weights=hf://OWNER/NAME model=hrnet_w18 dataset.num_classes=19 output=imported.pt

It reads the official HRNet files (best.pth, final_state.pth, checkpoint.pth.tar), torchvision
files, plain state dicts and checkpoints of segtrain, also as safetensors. Every weight must fit;
otherwise nothing is written. A file without a head, such as ImageNet weights, cannot be imported:
train with model.weights instead.

Keys:
  weights                  a file, a run directory, or hf://OWNER/NAME[/FILE][@REVISION]
  output                   the checkpoint to write, a .pt file
  model, model.*           the model of the weights, with its parameters
  model.align_corners      as in the training of the weights; required for official files, which
                           do not store it
  model.abn                true for files of PyTorch 0.4.1 with InPlaceABN
  dataset, dataset.*       the classes; without dataset=, set dataset.num_classes (default: that
                           of the file), dataset.class_names and dataset.palette
  augmentation.mean, .std  the normalization in the training of the weights
  evaluation.size          [height,width] to which images are resized for the model""",
    "inspect": """\
Check every image and mask of a dataset, and write a report.

Examples:
  {program} dataset=folder dataset.root=DIR dataset.num_classes=3
  {program} dataset=camvid dataset.root=DIR --augment augmentation=strong

It finds missing, unreadable, truncated and duplicate files, images and masks of different sizes,
values outside the label contract, images in two splits, masks without a valid pixel, classes with
few or no pixels, and images far larger than most. The exit code is 3 if training would fail.

It writes report.html, report.json and class_weights.json (for loss.class_weights=FILE). With
--augment it also writes augmented.html, which shows samples as the first epochs of a run would
augment them. It prints mean and standard deviation of the train images as keys for segtrain train.

Keys:
  dataset, dataset.*       the dataset to check; required
  output                   a directory; default: outputs/inspect/<title of the dataset>
  decode                   false: read only the headers of images, which is faster
  num_examples             samples shown in the report
  class_weights            method of class_weights.json: auto (default), inverse_frequency,
                           median_frequency, inverse_log or effective_number
  augment                  true: the same as --augment
  augmentation, augmentation.*
                           the augmentation that --augment shows
  num_augmented            samples that --augment shows
  num_epochs               epochs of each sample that --augment shows
  seed                     seed of the run that --augment shows
  plugins                  files that register the dataset""",
    "shards": """\
Write a split of a dataset as tar shards, to be read from a disk or a URL by dataset=webdataset.

Examples:
  {program} dataset=folder dataset.root=DIR dataset.num_classes=3 split=train output=DIR
  {program} dataset=cityscapes dataset.root=DIR split=val output=DIR samples_per_shard=500

It writes
  SPLIT-000000.tar, ...    the image and mask files, unchanged, as KEY.jpg and KEY.mask.png
  SPLIT-index.jsonl        the index with which shards are read and checked
  dataset/NAME_shards.yaml the dataset config, with the classes

To train on the shards, after both splits are written:
  segtrain train --config-dir DIR dataset=NAME_shards
  segtrain train --config-dir DIR dataset=NAME_shards dataset.root=https://HOST/PATH

Every file is decoded once. A file that is broken (beyond dataset.max_bad) or outside the label
contract ends the command. Run again, the command continues after the last complete shard.

Keys:
  dataset, dataset.*       the dataset to write; required
  output                   the directory to write to; required
  split                    train (default) or val
  samples_per_shard        default: 1000
  max_shard_gb             largest size of a shard, in 1e9 bytes; default: 1
  shuffle                  false: keep the order of the samples
  seed                     seed of the random order
  plugins                  files that register the dataset""",
    "list": """\
List what can be chosen by name, with a line about each, or the cost of every model.

Examples:
  {program}                            registered names and config files of each group
  {program} losses                     the losses; also minings, datasets, metrics, heads, ...
  {program} models                     parameters, multiply-adds, outputs and source of each model
  {program} models plugins=[mine.py]   the same, with your own models

The columns of models:
  parameters (M)           in millions, for 19 classes
  GMACs                    multiply-adds of convolutions and matrix products in 1e9, for one image
  at                       the size of that image, which is the one used in the model's paper
  outputs, source          names of the outputs, and the paper or library""",
    "completion": """\
Print a script that completes commands, keys and names in a shell.

Examples:
  eval "$({program} bash)"             in ~/.bashrc
  eval "$({program} zsh)"              in ~/.zshrc""",
}
