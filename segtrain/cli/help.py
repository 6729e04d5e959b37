"""What ``--help`` says of each command; ``{program}`` and ``{choices}`` are filled in."""

from __future__ import annotations

HELP = {
    "train": """\
Train a model. Choose parts by name, set any key, sweep any of them:

  {program}                                       the embedded default
  {program} loss=focal loss.gamma=3               another loss, another parameter
  {program} model=hrnet_w18 mining=ohem           another model, only the hard pixels
  {program} dataset=camvid dataset.root=DIR experiment=camvid_cpu
  {program} -m loss=cross_entropy,focal,dice      one run for each
  {program} run_dir=DIR resume=auto               go on with a run
  {program} plugins=[my_losses.py] loss=mine      a loss of your own

What there is:
{choices}

All keys, with what this command line makes of them: {program} --cfg""",
    "evaluate": """\
Score a checkpoint, as training did or on another dataset:

  {program} checkpoint=RUN_DIR
  {program} checkpoint=RUN_DIR/checkpoints/last.pt dataset=camvid dataset.root=DIR split=val

Keys: checkpoint, dataset, split, evaluation.batch_size, evaluation.size, loader.num_workers,
device, output (a JSON file).""",
    "predict": """\
Write class ids, coloured masks and overlays for an image or a folder of images, at their own size:

  {program} checkpoint=RUN_DIR input=FOLDER output=FOLDER

Keys: checkpoint, input, output, size, device.""",
    "import": """\
Turn weights of other code into a checkpoint that evaluate, predict and model.weights take:

  {program} weights=best.pth model=hrnet_w48 model.align_corners=false output=imported.pt
  {program} weights=best.pth model=hrnet_w48_ocr model.align_corners=true \\
      dataset=camvid dataset.root=DIR output=imported.pt
  {program} weights=hf://OWNER/NAME model=NAME dataset.num_classes=19 output=imported.pt

What is read: the official HRNet files best.pth, final_state.pth and checkpoint.pth.tar, those of
torchvision, plain state dicts, checkpoints of segtrain; safetensors likewise. Every weight must
fit, or nothing is written.

Keys: weights, output (a .pt file), and
  model, model.*            the model that the weights are of, with its parameters
  model.align_corners       as it was trained; needed where the file cannot tell (official files)
  model.abn                 true for files of PyTorch 0.4.1 with InPlaceABN
  dataset, dataset.*        the classes; without dataset= there are dataset.num_classes (the file's
                            own by default), dataset.class_names, dataset.palette
  augmentation.mean, .std   the normalisation it was trained with
  evaluation.size           height and width for the model
A file without a head, such as one of ImageNet, is for training alone: give it as model.weights.""",
    "inspect": """\
Look at every image and mask of a dataset, and write a report:

  {program} dataset=folder dataset.root=DIR dataset.num_classes=3
  {program} dataset=camvid dataset.root=DIR --augment augmentation=default

What is found: missing, unreadable, truncated and doubled files, sizes that differ, values outside
the label contract, images in both splits, masks that are ignored as a whole, classes with few
pixels or none, images far larger than most. The exit code is 3 when training would go wrong.

What is written: report.html and report.json; class_weights.json, for loss.class_weights=FILE; with
--augment also augmented.html, on which samples are as the first epochs of a run would see them.
Mean and deviation of the train images are printed as words for segtrain train.

Keys: dataset, augmentation, output (a directory), decode (false: read the headers of images only),
num_examples, class_weights (the method), num_augmented, num_epochs, seed.""",
    "shards": """\
Write a split of a dataset as tar shards, for dataset=webdataset, on this disk or behind a URL:

  {program} dataset=folder dataset.root=DIR dataset.num_classes=3 split=train output=DIR
  {program} dataset=cityscapes dataset.root=DIR split=val output=DIR samples_per_shard=500

What is written: SPLIT-000000.tar, SPLIT-000001.tar, ..., each with the images and masks byte for
byte, as KEY.jpg beside KEY.mask.png; SPLIT-index.jsonl, with which they are read and checked; and
dataset/NAME_shards.yaml, with the classes, so that this is all it takes to train on them:

  segtrain train --config-dir DIR dataset=NAME_shards
  segtrain train --config-dir DIR dataset=NAME_shards dataset.root=https://HOST/PATH

Every file is decoded once, and one that is broken or outside the label contract ends the command.
Started again, the command goes on after the last shard that was finished.

Keys: dataset, output, split, samples_per_shard, max_shard_gb, shuffle, seed.""",
    "list": """\
List what each config group offers: registered names and config files.

  {program}            the names
  {program} models     parameters, multiply-adds, outputs and source of each model

The multiply-adds (GMACs, 1e9) are those of convolutions and matrix products on one image of the
size that the model's paper uses, the parameters (M, 1e6) for 19 classes.""",
}
